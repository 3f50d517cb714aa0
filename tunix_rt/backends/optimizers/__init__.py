"""One definition of each optimizer but AdamW, for jax and torch alike: what is kept of a tensor, and its update."""
