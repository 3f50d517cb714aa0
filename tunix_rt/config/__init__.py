"""From YAML to checked, frozen values: the sections, their rules, and the identity of what they declare."""
