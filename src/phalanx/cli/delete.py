"""`phalanx delete`: stop a job and take it out of state."""

from __future__ import annotations

import click

from phalanx.cli._kinds import kind_argument
from phalanx.cli._options import echo_json, home_option, json_option, name_argument, namespace_option
from phalanx.foundation import Home


@click.command()
@kind_argument
@name_argument
@namespace_option
@home_option
@click.option("--files", is_flag=True, help="Remove its run directories too: checkpoints, logs, reports.")
@json_option
def command(kind: str, name: str, namespace: str, home: Home, files: bool, as_json: bool) -> None:
    """Stop a job and remove it.

    Its events stay in the store. Its files stay too, unless --files is given.

    \b
    Examples:
      phalanx delete job demo
      phalanx delete job demo --files
    """
    import shutil

    from phalanx.cli.stop import stop_job
    from phalanx.cluster import delete_objects
    from phalanx.daemons.hold import hold, open_state
    from phalanx.foundation import writing

    key = (namespace, name)
    stop_job(home, key)
    directory = home.runs_dir / namespace / name
    with hold(home, key):  # so that nobody takes it up between the stop and the end
        delete_objects(open_state(home), key)
        if files and directory.exists():
            with writing(directory):
                shutil.rmtree(directory)
    kept = str(directory) if directory.exists() else ""
    if as_json:
        echo_json({"namespace": namespace, "name": name, "deleted": True, "files": kept})
    else:
        click.echo(f"{namespace}/{name}: deleted" + (f"; its files stay in {kept}" if kept else ""))
