"""What surrounds a session of training: the wish to stop, the other hosts, and the watch over both."""

from typing import NamedTuple

from jaxnets.train.hosts import Hosts
from jaxnets.train.stop import Stop
from jaxnets.train.watch import Watch


class Around(NamedTuple):
    stop: Stop
    hosts: Hosts
    watch: Watch
