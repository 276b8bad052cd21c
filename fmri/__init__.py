"""fMRI: voxel betas to seen images. Its rooms open with the issues that bring them."""
