"""The command line: `run` one real device, `simulate` a fleet of invented ones."""

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from agent import __version__
from agent.backlog import MAX_BYTES
from agent.device import Options
from agent.drivers import choice
from agent.drivers.figures import Overheat
from agent.drivers.simulated import Behaviour
from agent.faults import LinkFaults
from agent.hosts import ForbiddenHost, target_of
from agent.progress import Counter
from agent.proxy_local import HEAD_SECONDS
from agent.run import AgentError, AgentOptions, run, until
from agent.simulator import Fleet, FleetError, FleetOptions

REPORTS_A_SECOND = 300
"""How many devices of a fleet, at most, report what runs in a second after a rollout to all of them."""
RUN_EXAMPLE = "example: python -m agent run --url https://cloud.example --provisioning-code CODE"
SIMULATE_EXAMPLE = "example: python -m agent simulate --url http://127.0.0.1:8080 --api-key edgeflow_… --devices 100"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0, or 1 after one line on standard error."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("agent").setLevel(options.log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(options.command(options))
    except (AgentError, FleetError, OSError, ValueError) as error:
        print(f"agent: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(prog="agent", description="EdgeFlow's reference device agent and fleet simulator.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(title="commands", required=True, metavar="run | simulate")
    _add_run(commands.add_parser("run", help="be one real device", epilog=RUN_EXAMPLE))
    _add_simulate(commands.add_parser("simulate", help="be a fleet of simulated devices", epilog=SIMULATE_EXAMPLE))
    return top


def _add_common(command: argparse.ArgumentParser, log_level: str) -> None:
    default = os.environ.get("EDGEFLOW_URL")
    command.add_argument(
        "--url", default=default, required=default is None, type=base_url, help="the cloud, http(s)://HOST[:PORT]"
    )
    command.add_argument(
        "--log-level", default=log_level, type=str.upper, choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )


def _add_run(command: argparse.ArgumentParser) -> None:
    _add_common(command, "INFO")
    command.add_argument(
        "--provisioning-code",
        metavar="CODE",
        default=os.environ.get("EDGEFLOW_PROVISIONING_CODE"),
        help="needed once; also EDGEFLOW_PROVISIONING_CODE, which other users of the machine do not see",
    )
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edgeflow-agent"
    command.add_argument(
        "--state-dir", type=Path, default=state, help="credentials, flows, answers, telemetry (%(default)s)"
    )
    command.add_argument(
        "--telemetry-interval",
        type=interval,
        default=10.0,
        metavar="SECONDS",
        help="between batches of figures and log lines, until the cloud sets another; 0: none (%(default)s)",
    )
    command.add_argument(
        "--telemetry-buffer",
        type=mebibytes,
        default=MAX_BYTES,
        metavar="MIB",
        help="of the state directory for what is gathered while offline (16)",
    )
    _add_runtime(command.add_argument_group("the runtime that is driven"))
    command.set_defaults(command=_run)


def _add_runtime(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--driver", choices=sorted(choice.DRIVERS), default="local", help="what runs the flows (%(default)s)")
    add("--runtime-url", type=base_url, metavar="URL", help="its API, where it is not at its usual port here")
    add("--runtime-token-file", type=Path, metavar="FILE", help="holds the access token that its API wants")
    add("--editor-url", type=editor_url, metavar="URL", help="its editor, where it is not at the runtime's URL")
    add(
        "--editor-timeout",
        type=patience,
        default=HEAD_SECONDS,
        metavar="SECONDS",
        help="until its editor begins to answer a request: npm may install for minutes (%(default)g)",
    )
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="a host beside this machine that the setting local_url may name; repeatable",
    )


def _add_simulate(command: argparse.ArgumentParser) -> None:
    _add_common(command, "WARNING")
    add = command.add_argument
    add("--devices", type=int, required=True, metavar="N")
    add("--prefix", default="demo", help="devices are called PREFIX-001 and so on (%(default)s)")
    add("--tags", default="", metavar="a,b", help="of devices that are created")
    add("--seed", type=int, default=1)
    add("--email", default=os.environ.get("EDGEFLOW_EMAIL", ""))
    add("--password", default=os.environ.get("EDGEFLOW_PASSWORD", ""), help="also EDGEFLOW_PASSWORD")
    add("--api-key", default=os.environ.get("EDGEFLOW_API_KEY", ""), help="edgeflow_…; also EDGEFLOW_API_KEY")
    add("--state-file", type=Path, help="ids and keys, to be the same devices next time (.edgeflow/fleet-PREFIX.json)")
    add("--ledger-file", type=Path, help="written at the end and on SIGUSR1: how often each command id was applied")
    add("--at-once", type=int, default=50, metavar="N", help="connects under way at once (%(default)s)")
    add("--no-shadow", action="store_true", help="do not read and report the shadow after each connect")
    add(
        "--report-interval",
        type=interval,
        metavar="SECONDS",
        help="between looks at what runs, for the shadow (15, more with more than 4,500 devices)",
    )
    figures = command.add_argument_group("telemetry").add_argument
    figures("--telemetry-interval", type=interval, default=10.0, metavar="SECONDS", help="0: none (%(default)s)")
    figures("--points-per-second", type=float, default=0.0, metavar="N", help="more points, of each device")
    figures(
        "--overheat",
        type=overheat,
        action="append",
        default=[],
        metavar="NAME:FROM:SECONDS[:PERIOD]",
        help="a device that is too hot from that second on for so many seconds, and again each PERIOD; repeatable",
    )
    behaviour = command.add_argument_group("behaviour (rates from 0 to 1, seeded)").add_argument
    behaviour("--latency-ms", type=float, default=50.0, help="per command (%(default)s)")
    behaviour("--latency-jitter-ms", type=float, default=0.0)
    behaviour("--failure-rate", type=rate, default=0.0, help="starts of flows that fail")
    behaviour("--error-rate", type=rate, default=0.0, help="executions of flows that fail")
    behaviour("--node-types", metavar="a,b", help="the only node types that the devices have; default: any")
    behaviour("--drop-rate", type=rate, default=0.0, help="answers in whose stead the connection breaks")
    behaviour("--loss-rate", type=rate, default=0.0, help="answers that never leave")
    behaviour("--duplicate-rate", type=rate, default=0.0, help="answers that are sent twice")
    behaviour("--reorder-rate", type=rate, default=0.0, help="answers that later ones overtake")
    behaviour("--late-rate", type=rate, default=0.0, help="answers that leave 5 s late")
    command.set_defaults(command=_simulate)


def base_url(text: str) -> str:
    """An http(s) URL without a trailing slash. Nothing may follow its path, to which others are added."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError("must be http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]")
    return text.rstrip("/")


def editor_url(text: str) -> str:
    """As `base_url`, and one that the editor's streams can be led to."""
    try:
        target_of(base_url(text))
    except ForbiddenHost as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return base_url(text)


def rate(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return value


def interval(text: str) -> float:
    """0, or seconds from 1 to 3600."""
    value = float(text)
    if value != 0 and not 1 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be 0 or from 1 to 3600")
    return value


def patience(text: str) -> float:
    """Seconds from 1 to 3600."""
    value = float(text)
    if not 1 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be from 1 to 3600")
    return value


def mebibytes(text: str) -> int:
    """At least 1 MiB, in bytes."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value * 1024 * 1024


def overheat(text: str) -> tuple[str, Overheat]:
    """`NAME:FROM:SECONDS[:PERIOD]`."""
    name, *seconds = text.split(":")
    if not name or len(seconds) not in (2, 3):
        raise argparse.ArgumentTypeError("must be NAME:FROM:SECONDS[:PERIOD]")
    return name, Overheat(*map(float, seconds))


async def _run(options: argparse.Namespace) -> None:
    stop = _stop_on_signals()
    agent = AgentOptions(
        options.url,
        options.state_dir,
        options.provisioning_code,
        options.log_level,
        options.telemetry_interval,
        options.telemetry_buffer,
        tuple(options.allow_host),
        options.editor_timeout,
    )
    runtime = choice.RuntimeOptions(
        options.state_dir, options.runtime_url, options.runtime_token_file, options.editor_url
    )
    await run(agent, lambda: choice.make(options.driver, runtime), stop)


async def _simulate(options: argparse.Namespace) -> None:
    stop = _stop_on_signals()
    _raise_descriptor_limit()
    fleet = Fleet(fleet_options(options))
    if options.ledger_file:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, fleet.dump, options.ledger_file)
    try:
        with Counter() as progress:
            await until(stop, fleet.start(timeout=None, progress=progress))
        if not stop.is_set():
            print(f"all {len(fleet.devices)} devices are connected; Ctrl-C ends them", flush=True)
        await stop.wait()
    finally:
        await fleet.stop()
        if options.ledger_file:
            fleet.dump(options.ledger_file)


def fleet_options(options: argparse.Namespace) -> FleetOptions:
    """The fleet that the command line describes."""
    folder = Path(os.environ.get("EDGEFLOW_DATA_DIR") or ".edgeflow")
    types = frozenset(split(options.node_types)) if options.node_types else None
    faults = LinkFaults(
        options.drop_rate, options.loss_rate, options.duplicate_rate, options.reorder_rate, options.late_rate
    )
    return FleetOptions(
        url=options.url,
        devices=options.devices,
        prefix=options.prefix,
        tags=split(options.tags),
        seed=options.seed,
        api_key=options.api_key,
        email=options.email,
        password=options.password,
        state_file=options.state_file or folder / f"fleet-{options.prefix}.json",
        behaviour=Behaviour(
            options.latency_ms,
            options.latency_jitter_ms,
            options.failure_rate,
            types,
            points_per_second=options.points_per_second,
            error_rate=options.error_rate,
        ),
        overheat=dict(options.overheat),
        faults=faults if faults.any else None,
        link=Options(
            sync_shadow=not options.no_shadow,
            telemetry_interval=options.telemetry_interval,
            report_interval=options.report_interval or max(15.0, options.devices / REPORTS_A_SECOND),
        ),
        at_once=max(1, options.at_once),
    )


def split(text: str) -> list[str]:
    """`a, b` as a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _raise_descriptor_limit() -> None:
    """Each socket is a descriptor, and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
