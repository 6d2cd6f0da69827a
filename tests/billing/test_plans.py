"""The file of plans: what it says is what holds, and a mistake in it stops the start with one line."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import create_app
from app.billing import plans
from config import plans as configuration
from config.settings import SettingsError
from tests.platform import ROOT, free_port

MINIMAL = """\
[free]
name = "Free"
retention = { raw = 7, minutes = 30, hours = 365, logs = 7 }
quotas = { devices = 3, members = "unlimited" }

[team]
name = "Team"
price = { amount = 4_900, currency = "eur", interval = "year", stripe_price = "price_team" }
trial_days = 30
retention = { raw = 8, minutes = 31, hours = 366, logs = 9 }

[firm]
name = "Firm"
price = { amount = 1, currency = "jpy", interval = "month", stripe_price = "price_firm" }
retention = { raw = 8, minutes = 31, hours = 366, logs = 9 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "plans.toml"


def fault(file: Path, content: str) -> str:
    """The line that tells why a file cannot be used, without its path."""
    file.write_text(content)
    with pytest.raises(SettingsError) as raised:
        configuration.load(file)
    line = str(raised.value)
    assert line.startswith(f"{file}: ")
    assert "\n" not in line
    return line.removeprefix(f"{file}: ")


def test_what_a_plan_says(file: Path) -> None:
    file.write_text(MINIMAL)
    found = configuration.load(file)
    assert list(found) == ["free", "team", "firm"]
    assert found["team"] == plans.Plan(
        id="team",
        name="Team",
        price=plans.Price(4900, "eur", "year", "price_team"),
        trial_days=30,
        quotas=dict.fromkeys(plans.QUOTAS),
        retention=plans.Retention(*(timedelta(days=days) for days in (8, 31, 366, 9))),
    )
    assert (found["free"].price, found["free"].trial_days) == (None, 0)
    assert found["free"].quotas == {**dict.fromkeys(plans.QUOTAS), "devices": 3}


def test_the_plans_that_we_ship() -> None:
    free, pro, enterprise = plans.plans().values()
    assert [one.id for one in (free, pro, enterprise)] == ["free", "pro", "enterprise"]
    assert free.price is None
    assert (free.quotas["devices"] or 0) >= 50
    assert pro.price is not None
    assert enterprise.price is not None
    assert pro.price.amount < enterprise.price.amount
    for smaller, larger in ((free, pro), (pro, enterprise)):
        for quota in plans.QUOTAS:
            assert (larger.quotas[quota] or configuration.MOST) > (smaller.quotas[quota] or 0)
    for one in (free, pro):  # a fleet as large as the plan lets it be stores no more than the plan lets it
        assert (one.quotas["metric_points_per_day"] or 0) >= (one.quotas["devices"] or 0) * 12 * 24 * 3600 / 5


def test_a_plan_by_its_price_at_stripe() -> None:
    for one in plans.plans().values():
        assert one.price is None or plans.by_price(one.price.stripe_price) is one
    assert plans.by_price("price_of_another") is None
    assert plans.by_price("") is None


COUNT = "must be a whole number between 1 and 9007199254740991"
LIMIT = 'must be a whole number between 0 and 9007199254740991, or "unlimited"'


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("amount = 4_900", "amount = 0", f"team.price.amount: {COUNT}"),
        ("amount = 4_900", "amount = true", f"team.price.amount: {COUNT}"),
        ("amount = 4_900", 'amount = "4900"', f"team.price.amount: {COUNT}"),
        ("amount = 4_900", "amount = 49.0", f"team.price.amount: {COUNT}"),
        ("amount = 4_900, ", "", "team.price.amount: is missing"),
        ('"eur"', '"EUR"', "team.price.currency: must be a currency's ISO 4217 code in lower case, like `eur`"),
        ('"year"', '"week"', "team.price.interval: must be month or year"),
        (
            '"price_team"',
            '"price team"',
            "team.price.stripe_price: must be the id of a price at Stripe, like `price_…`",
        ),
        ('"price_firm"', '"price_team"', "firm.price.stripe_price: is another plan's, too"),
        ("trial_days = 30", "trial_days = 731", "team.trial_days: must be a whole number between 0 and 730"),
        ("trial_days = 30", 'trial_days = "unlimited"', "team.trial_days: must be a whole number between 0 and 730"),
        ("quotas = {", "trial_days = 3\nquotas = {", "free.trial_days: wants a price"),
        (
            "quotas = {",
            'price = { amount = 1, currency = "eur", interval = "month", stripe_price = "price_free" }\nquotas = {',
            "free.price: must be absent: nobody subscribes to this plan",
        ),
        ("devices = 3", "devices = -1", f"free.quotas.devices: {LIMIT}"),
        ("devices = 3", "devices = false", f"free.quotas.devices: {LIMIT}"),
        ("devices = 3", 'devices = "many"', f"free.quotas.devices: {LIMIT}"),
        ("devices = 3", "devises = 3", "free.quotas.devises: there is no such key"),
        ("quotas", "quota", "free.quota: there is no such key"),
        ("raw = 8, ", "", "team.retention.raw: is missing"),
        ("raw = 7,", "raw = 0,", "free.retention.raw: must be a whole number between 1 and 36500"),
        ("{ raw = 7, minutes = 30, hours = 365, logs = 7 }", "7", "free.retention: must be a table"),
        ('name = "Team"\n', "", "team.name: is missing"),
        ('name = "Team"', 'name = " "', "team.name: must be a text of at most 100 characters"),
        ('name = "Team"', "name = 7", "team.name: must be a text of at most 100 characters"),
        ("[free]", "[frei]", "free: is missing: it holds where there is no subscription"),
        ("[free]", "note = 1\n[free]", "note: must be a table"),
        ("[team]", "[team", "is no TOML: Expected ']' at the end of a table declaration (at line 6, column 6)"),
        (MINIMAL, "", "free: is missing: it holds where there is no subscription"),
    ],
)
def test_a_mistake_is_told_in_one_line(file: Path, right: str, wrong: str, told: str) -> None:
    assert right in MINIMAL
    assert fault(file, MINIMAL.replace(right, wrong, 1)) == told


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^EDGEFLOW_PLANS_FILE: \S+/none.toml cannot be read: No such file"):
        configuration.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"binary.toml: is no TOML"):
        configuration.load(tmp_path / "binary.toml")


TOML = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.floats(allow_nan=False).map(lambda value: str(value).replace("e", "E")),
    st.sampled_from(['"unlimited"', '"3"', '""', "[]", "[3]", "{}", "1979-05-27", "nan", '"""a\nb"""']),
)


@given(TOML)
@example("true")
@example('"unlimited"')
def test_a_limit_is_a_number_that_json_holds_or_none(tmp_path_factory: pytest.TempPathFactory, written: str) -> None:
    file = tmp_path_factory.getbasetemp() / "one-limit.toml"
    file.write_text(MINIMAL.replace("devices = 3", f"devices = {written}"))
    if written == '"unlimited"':
        assert configuration.load(file)["free"].quotas["devices"] is None
    elif written.isdecimal() and int(written) <= configuration.MOST:
        limit = configuration.load(file)["free"].quotas["devices"]
        assert (type(limit), limit) == (int, int(written))
    else:
        with pytest.raises(SettingsError) as raised:
            configuration.load(file)
        assert str(raised.value) == f"{file}: free.quotas.devices: {LIMIT}"


def test_an_application_is_not_made_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(MINIMAL.replace("[free]", "[frei]"))
    monkeypatch.setattr("app.plans", lambda: configuration.load(file))
    with pytest.raises(SettingsError, match="free: is missing"):
        create_app()


@pytest.mark.parametrize(
    "part",
    ["gunicorn -c config/gunicorn.py wsgi:app", "dramatiq workers --processes 1 --threads 1", "config.supervisor"],
)
def test_no_process_starts_with_it(file: Path, part: str) -> None:
    file.write_text(MINIMAL.replace("amount = 4_900", 'amount = "a lot"'))
    environ = {
        **os.environ,
        "EDGEFLOW_PLANS_FILE": str(file),
        "EDGEFLOW_PORT": str(free_port()),
        "EDGEFLOW_DATA_DIR": str(file.parent / "data"),
    }
    command = [sys.executable, "-m", *part.split()]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    told = [line for line in (ended.stdout + ended.stderr).splitlines() if "cannot start" in line]
    assert [line.partition("cannot start: ")[2] for line in told] == [f"{file}: team.price.amount: {COUNT}"]
    assert "Traceback" not in ended.stdout + ended.stderr
