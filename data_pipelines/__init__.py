"""From image files to `tf.data`: manifest, splits, reading, geometry, intensity, cache, augmentation."""
