import pytest

from jaxnets.errors import UserError
from jaxnets.train.mesh import check_batch_size, round_up


@pytest.mark.parametrize(("size", "nearest"), [(100, "96 or 104"), (3, "8"), (9, "8 or 16")])
def test_a_batch_that_devices_cannot_share_is_refused_with_the_nearest(eight_devices, size, nearest):
    with pytest.raises(UserError, match=f"config.batch_size {size} cannot be shared equally by 8 .*: take {nearest}$"):
        check_batch_size("config.batch_size", size, eight_devices)


def test_a_batch_that_devices_can_share_passes(eight_devices):
    check_batch_size("config.batch_size", 64, eight_devices)
    assert [round_up(size, eight_devices) for size in (1, 8, 9)] == [8, 8, 16]
