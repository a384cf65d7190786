"""`edge deploy`: a model onto a device, over ssh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edge.cli_options import PATH, Number, json_option
from edge.console import Progress, bytes_text, out, out_facts, out_json, say, seconds_text, warn

if TYPE_CHECKING:
    from edge.deploy import Deployment

EPILOG = """
\b
Examples:
  edge deploy cats.edge pi@raspberrypi.local                 to ~/edge/cats there, checked and measured
  edge deploy cats.edge pi@10.0.0.7 -p 2222 -i ~/.ssh/pi     as ssh takes them
  edge deploy cats.edge pi@pi --offline                      where the device has no network of its own
  edge deploy cats.edge pi@pi --service watch                and classify what appears in ~/edge-pictures
  edge deploy cats.edge pi@pi --uninstall                    leave nothing

\b
The device needs 64-bit Linux with Python 3.11 and python3-venv. A second deployment replaces the first in one step;
where anything fails the first one stays in use. On the device: ~/edge/cats/current/run.sh photo.jpg
"""


@click.command(epilog=EPILOG)
@click.argument("model", type=PATH, metavar="MODEL")
@click.argument("host", metavar="USER@HOST")
@click.option("-p", "--port", type=click.IntRange(1, 65535), metavar="PORT", help="Port of the device's ssh server.")
@click.option("-i", "--identity", type=PATH, metavar="FILE", help="Key to log in with, as ssh takes it.")
@click.option("-o", "--ssh-option", "ssh_options", multiple=True, metavar="KEY=VALUE", help="Option of ssh; may be repeated.")
@click.option("--to", "root", metavar="DIR", help="Folder on the device (default: ~/edge/ and the model's name).")
@click.option("--target", metavar="NAME|FILE", help="The device's profile (default: by what the board calls itself).")
@click.option("--picture", type=PATH, metavar="FILE", help="The picture whose answer the device has to repeat (default: noise).")
@click.option("--with-numba", is_flag=True, help="Let Numba compile the kernels there, instead of compiling them here.")
@click.option("--offline", is_flag=True, help="Send the packages along, for a device without a network.")
@click.option("--system-site-packages", is_flag=True, help="Use the device's own numpy and pillow where they are new enough.")
@click.option("--service", type=click.Choice(["watch", "camera"]), help="Classify a folder's new pictures, or camera stills, from now on.")
@click.option("--folder", default="~/edge-pictures", show_default=True, metavar="DIR", help="The folder that --service watch watches.")
@click.option("--seconds", type=Number(0.01, 600), default=1.0, show_default=True, help="How long to measure there.")
@click.option("--uninstall", is_flag=True, help="Remove what was deployed, service and all.")
@json_option
def deploy(model: str, host: str, as_json: bool, **options: Any) -> None:
    """Put MODEL (.edge) onto a device over ssh, check its known answer there, and measure it."""
    from edge import deploy as deployment
    from edge.deploy_ssh import Address

    address = Address(host, options["port"], options["identity"], options["ssh_options"])
    if options["uninstall"]:
        place = deployment.uninstall(model, address, options["root"])
        out_json({"host": host, "removed": place}) if as_json else say(f"removed {place} from {host}")
        return
    service = deployment.Service(options["service"], options["folder"]) if options["service"] else None
    names = ("root", "target", "picture", "with_numba", "offline", "system_site_packages", "seconds")
    plan = deployment.Plan(service=service, **{name: options[name] for name in names})
    with Progress() as progress:
        done = deployment.deploy(model, address, plan, progress=progress.update)
    for remark in done.remarks:
        warn(remark)
    if as_json:
        out_json(done.to_json())
    else:
        _print(done)


def _print(done: Deployment) -> None:
    figures = done.figures
    out(f"{'updated' if done.replaced else 'installed'} on {done.host}, a {done.device.title}")
    out_facts(_facts(done, figures))
    out(f"\nOn the device: {done.place}/run.sh photo.jpg")


def _facts(done: Deployment, figures: Any) -> list[tuple[str, str]]:
    start = "unknown" if figures["start_s"] is None else seconds_text(figures["start_s"])
    return [
        ("known answer", figures["answer"].partition("; ")[0]),
        ("inference, measured there", _latency(figures)),
        ("inference, from the profile", _predicted(done)),
        ("start to first answer", start),
        ("memory", f"{bytes_text(figures['peak_resident_bytes'])} at most, Python included"),
        ("storage", f"{bytes_text(figures['storage_bytes'])}, packages included"),
    ]


def _latency(figures: Any) -> str:
    tails = f"p95 {seconds_text(figures['p95_s'])}, p99 {seconds_text(figures['p99_s'])}"
    return f"{seconds_text(figures['p50_s'])} ({tails}, one thread, {figures['backend']}, {figures['inferences']:,} times)"


def _predicted(done: Deployment) -> str:
    if done.prediction is None:
        return f"no profile of this device ({done.device.title}); name one with --target"
    found = done.prediction
    return f"{seconds_text(found.seconds)}, {found.basis}, expected error {100 * found.expected_error:.0f} % ({found.target})"
