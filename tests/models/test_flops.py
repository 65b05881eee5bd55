from voxlift.models.flops import layer_flops


def test_a_layer_is_counted_without_being_built():
    config = {"kernel_size": (3, 3, 3), "groups": 2, "use_bias": False}
    assert layer_flops("Conv3D", config, [(1, 5, 7, 11, 4)], (1, 5, 7, 11, 6)) == 2 * 385 * 6 * 27 * 2
    assert layer_flops("Conv2DTranspose", {"kernel_size": 2}, [(1, 5, 7, 4)], (1, 10, 14, 3)) == (
        2 * 35 * 4 * 4 * 3 + 420
    )
    assert layer_flops("Dropout", {}, [(1, 5)], (1, 5)) == 0
