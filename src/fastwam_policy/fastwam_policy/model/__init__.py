"""Fast-WAM itself: experts, shared attention, masks, flow matching, autoencoder. Torch only."""
