from concurrent.futures import ThreadPoolExecutor

from workflows.simulator.faults.request_faults import DROP, SERVER_ERROR, SLOW, RequestFaults


def test_without_a_rate_and_a_plan_no_request_fails() -> None:
    assert [RequestFaults().next("GET /x") for _ in range(50)] == [None] * 50


def test_the_same_seed_gives_the_same_faults() -> None:
    def drawn(seed: int) -> list[str | None]:
        faults = RequestFaults(0.3, seed=seed)
        return [faults.next("GET /x") for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_rate_is_the_share_of_requests_that_fail() -> None:
    faults = RequestFaults(0.1, seed=3)
    for _ in range(2000):
        faults.next("GET /x")
    assert 150 < len(faults.injected) < 250


def test_only_faults_that_are_chosen_and_possible_happen() -> None:
    faults = RequestFaults(1.0, kinds=(DROP, SERVER_ERROR))
    assert {faults.next("GET /x", (SERVER_ERROR, SLOW)) for _ in range(20)} == {SERVER_ERROR}
    assert faults.next("GET /x", (SLOW,)) is None


def test_a_planned_fault_comes_once_and_to_its_own_request() -> None:
    faults = RequestFaults(planned=[("GET /cdn", DROP)])
    assert [faults.next(request) for request in ("GET /api", "GET /cdn/a", "GET /cdn/b")] == [None, DROP, None]
    assert faults.injected == [("GET /cdn/a", DROP)]


def test_a_plan_may_grow_while_the_service_runs() -> None:
    faults = RequestFaults()
    faults.plan("PUT /", SERVER_ERROR, times=2)
    assert [faults.next("PUT /key") for _ in range(3)] == [SERVER_ERROR, SERVER_ERROR, None]


def test_many_threads_get_each_scripted_fault_once() -> None:
    faults = RequestFaults()
    faults.plan("GET", DROP, times=100)
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: faults.next("GET /x"), range(400)))
    assert drawn.count(DROP) == 100
