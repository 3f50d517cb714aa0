"""Our launchers and sweepers, where Hydra looks for them. Thin: the substance is in `tunix_rt.sweeps`."""
