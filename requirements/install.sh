#!/bin/sh
# Install requirement files into an environment, with uv where it can, else with pip.
#
#   requirements/install.sh PYTHON FILE...
#
# Local wheels (PIP_FIND_LINKS, UV_FIND_LINKS, or pip's own configuration) are offered to both tools.
# uv is used only when a dry run shows that it can resolve everything from what it sees.
set -eu

python=$1
shift
links="${PIP_FIND_LINKS:-} ${UV_FIND_LINKS:-} $("$python" -m pip config get global.find-links 2>/dev/null || true)"

set -- $(printf -- '--requirement %s ' "$@")
for place in $(printf '%s' "$links" | tr ',\n' '  '); do
    case " $* " in
        *" $place "*) ;;
        *) set -- "$@" --find-links "$place" ;;
    esac
done
unset UV_FIND_LINKS PIP_FIND_LINKS

if command -v uv >/dev/null 2>&1 && uv pip install --quiet --dry-run --python "$python" "$@" 2>/dev/null; then
    echo "installing with uv (the first time takes a minute)"
    exec uv pip install --quiet --python "$python" "$@"
fi
echo "installing with pip (the first time takes a minute or two)"
exec "$python" -m pip install --quiet --disable-pip-version-check "$@"
