import pytest

from wagle.system.errors import WagleError, no_setting


@pytest.mark.parametrize(
    ("key", "more", "said"),
    [
        ("bata", {}, "npo has no setting 'bata'; did you mean 'beta'? (known: beta, scale)"),
        ("zzz", {}, "npo has no setting 'zzz' (known: beta, scale)"),
        (
            "bata",
            {"near": "; nearest: {}", "listed": ""},
            "npo has no setting 'bata'; nearest: beta",
        ),
        (
            "bata",
            {"listed": "; it has {}", "short": True},
            "npo has no setting 'bata'; did you mean 'beta'?",
        ),
        (
            "zzz",
            {"listed": "; it has {}", "short": True},
            "npo has no setting 'zzz'; it has beta, scale",
        ),
    ],
)
def test_a_setting_that_is_not_there_is_told_with_the_nearest_and_with_all_there_are(
    key, more, said
):
    error = no_setting("npo", key, ("beta", "scale"), **more)
    assert isinstance(error, WagleError)
    assert str(error) == said


def test_where_there_are_no_settings_at_all_that_is_said():
    assert str(no_setting("wrapper none", "rho", {})) == (
        "wrapper none has no setting 'rho' (known: none)"
    )
