"""What loaders read with: lists, tables, pairs of images and masks, and the layouts that many datasets share."""
