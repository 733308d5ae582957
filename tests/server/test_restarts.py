from redserve.server.restarts import MOST_IN_A_ROW, SETTLED_S, Restarts


def test_each_death_in_a_row_waits_twice_as_long():
    restarts = Restarts()

    assert [restarts.died(ready_s=0.0) for _ in range(4)] == [0.1, 0.2, 0.4, 0.8]


def test_workers_that_die_over_and_over_are_given_up():
    restarts = Restarts()
    delays_s = [restarts.died(ready_s=SETTLED_S / 2) for _ in range(MOST_IN_A_ROW + 1)]

    assert None not in delays_s[:-1]
    assert delays_s[-1] is None


def test_a_worker_that_had_settled_begins_the_count_anew():
    restarts = Restarts()
    for _ in range(MOST_IN_A_ROW):
        restarts.died(ready_s=0.0)

    assert restarts.died(ready_s=SETTLED_S) == 0.1
    assert restarts.in_a_row == 1
