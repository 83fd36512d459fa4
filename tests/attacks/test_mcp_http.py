"""What strangers, web pages and other clients cannot do to the HTTP server; each attack works once its rule is gone."""

from collections.abc import Callable, Iterator

import pytest

from tests.attacks import http_attacks as attacks
from tests.attacks import http_sabotages as sabotages
from tests.attacks.http_attacks import Scene, http_scene
from tests.attacks.sabotages import Sabotage
from tests.mcp_clients import Pair, pair_of_machines

Attack = Callable[[Scene], bool]

ROWS: list[tuple[Attack, Sabotage]] = [
    (attacks.ask_without_a_token, sabotages.nobody_is_asked_for_a_token),
    (attacks.guess_a_token, sabotages.any_token_will_do),
    (attacks.ask_from_a_web_page, sabotages.every_name_is_ours),
    (attacks.rebind_a_name, sabotages.every_name_is_ours),
    (attacks.speak_in_anothers_session, sabotages.all_clients_are_one),
    (attacks.speak_as_another_by_its_url, sabotages.a_url_is_a_session),
    (attacks.end_anothers_session, sabotages.all_clients_are_one),
    (attacks.pass_for_the_hook_of_a_host, sabotages.hooks_are_taken_from_anybody),
    (attacks.connect_without_end, sabotages.connections_have_no_end),
    (attacks.begin_to_ask_and_stop, sabotages.a_head_may_take_for_ever),
    (attacks.begin_to_tell_and_stop, sabotages.a_body_may_take_for_ever),
    (attacks.send_a_huge_body, sabotages.bodies_have_no_end),
    (attacks.open_sessions_without_end, sabotages.sessions_have_no_end),
    (attacks.fail_to_open_sessions_without_end, sabotages.what_was_not_opened_does_not_count),
    (attacks.take_the_sessions_of_another, sabotages.nothing_is_kept_for_others),
    (attacks.take_the_urls_of_another, sabotages.nothing_is_kept_for_others),
    (attacks.take_the_sessions_of_another_by_half_requests, sabotages.nothing_is_kept_for_others),
    (attacks.take_the_answers_of_another, sabotages.nothing_is_kept_for_others),
    (attacks.subscribe_without_end, sabotages.subscriptions_have_no_end),
    (attacks.subscribe_to_a_huge_name, sabotages.names_of_resources_have_no_end),
    (attacks.invent_urls_without_end, sabotages.sessions_have_no_end),
    (attacks.be_called_read_by_a_client_that_vanished, sabotages.what_has_left_was_read),
    (attacks.be_called_read_by_a_client_that_gave_up, sabotages.cancellations_change_nothing),
    (attacks.be_called_offered_by_a_client_that_hung_up, sabotages.what_nobody_took_has_left),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two machines in one mesh."""
    with pair_of_machines(tmp_path_factory.mktemp("pair")) as one:
        yield one


@pytest.mark.parametrize("attack", [attack for attack, _ in ROWS], ids=lambda one: one.__name__)
def test_an_attack_on_the_http_server_fails(attack: Attack, pair: Pair) -> None:
    """Nobody is served unasked, nobody speaks as another, nothing grows without end, no receipt lies."""
    with http_scene(pair) as scene:
        succeeded = attack(scene)

    assert not succeeded


@pytest.mark.parametrize(("attack", "sabotage"), ROWS, ids=[one.__name__ for one, _ in ROWS])
def test_it_succeeds_without_its_rule(attack: Attack, sabotage: Sabotage, pair: Pair) -> None:
    """Otherwise its failure would prove nothing."""
    with sabotage(), http_scene(pair) as scene:
        succeeded = attack(scene)

    assert succeeded
