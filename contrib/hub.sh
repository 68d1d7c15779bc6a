# shellcheck shell=sh
# Log lines of the hub's standard (one JSON object a line on stdout) from a POSIX shell script:
#
#   . /usr/share/observability-hub/hub.sh
#   hub_info backup_finished files=120 target=/mnt/backup
#
# HUB_SERVICE  the name that lines carry; default: the name of the script
# HUB_BIN      the hub program; default: hub on PATH
#
# A wrong level or key gives 2, as hub log does. Without the hub program the line goes to standard error in plain text
# and the result is 0: a backup must not fail because its log line had no JSON.

# hub_log LEVEL MSG [KEY=VALUE ...]
hub_log() {
    if ! command -v "${HUB_BIN:-hub}" >/dev/null 2>&1; then
        printf '%s: %s (%s is not installed; set HUB_BIN)\n' "${HUB_SERVICE:-${0##*/}}" "$*" "${HUB_BIN:-hub}" >&2
        return 0
    fi
    "${HUB_BIN:-hub}" log --service "${HUB_SERVICE:-${0##*/}}" -- "$@"
}

hub_debug() { hub_log debug "$@"; }
hub_info() { hub_log info "$@"; }
hub_warn() { hub_log warn "$@"; }
hub_error() { hub_log error "$@"; }
