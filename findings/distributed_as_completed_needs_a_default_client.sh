#!/usr/bin/env bash
# distributed.wait and as_completed fail without a default client, although every future that they are given has one.
#
# Behavior (distributed 2026.8.0): futures of Client(..., set_as_default=False) give their results; wait(futures) and
# as_completed(futures) raise "No clients found", and as_completed(futures, loop=client.loop) works.
# One would expect: the client of the futures to be used, as future.result() does.
# It matters for libraries that connect to a cluster on their own and leave the user's default client alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check distributed==2026.8.0 dask==2026.8.0
cat > "$work/clients.py" <<'PY'
import distributed

if __name__ == "__main__":
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        futures = client.map(abs, [-1, -2])
        print(sorted(future.result() for future in futures))
        for function in (distributed.wait, lambda given: list(distributed.as_completed(given))):
            try:
                function(futures)
            except ValueError as error:
                print(str(error).splitlines()[0])
            else:
                raise SystemExit("it works now")
        print(len(list(distributed.as_completed(futures, loop=client.loop))), "with loop=")
PY
"$work/venv/bin/python" "$work/clients.py"
