# SPDX-License-Identifier: Apache-2.0
"""The bounded queue between threads."""

import threading

from recon3d_ros.runtime.queues import BoundedQueue


def test_a_live_queue_drops_the_oldest_and_counts():
    queue = BoundedQueue(2, drop_oldest=True)
    for i in range(5):
        queue.put(i)
    assert (queue.get(), queue.get(), queue.get(timeout=0)) == (3, 4, None)
    assert queue.dropped == 3 and queue.high_water == 2


def test_an_offline_queue_makes_the_producer_wait():
    queue = BoundedQueue(1, drop_oldest=False)
    producer = threading.Thread(target=lambda: [queue.put(i) for i in range(50)])
    producer.start()
    assert [queue.get(timeout=5) for _ in range(50)] == list(range(50))
    producer.join()
    assert queue.dropped == 0


def test_closing_lets_the_rest_be_taken_and_frees_a_waiting_producer():
    queue = BoundedQueue(1, drop_oldest=False)
    queue.put(1)
    producer = threading.Thread(target=queue.put, args=(2,))
    producer.start()
    queue.close()
    producer.join(timeout=5)
    assert not producer.is_alive()
    assert queue.get() == 1 and queue.get() is None
