"""Training: data sets, noising, the loop, the autoencoder and the networks that draw."""
