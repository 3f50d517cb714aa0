"""Our launchers and sweepers, where Hydra looks for them. Thin wrappers around `tunix_rt.sweeps`."""
