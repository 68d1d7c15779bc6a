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

# hub_sync [PIPELINE]: asks the proxy on this host to run a pipeline (default: reading), shows its progress as log lines,
# and gives 0 when everything was moved. Needs curl. What reading-sync does too, for scripts that have only a shell.
#
# HUB_ADMIN    the proxy's admin listener; default: http://127.0.0.1:8086
# HUB_TOKEN    the admin token, where one is set
hub_sync() {
    hub_sync_last=$(
        # The token goes by standard input, so that ps does not show it.
        if [ -n "${HUB_TOKEN:-}" ]; then printf 'header = "Authorization: Bearer %s"\n' "$HUB_TOKEN"; fi |
            curl --silent --show-error --no-buffer --request POST --config - --header 'Accept: application/x-ndjson' \
                --max-time 21600 "${HUB_ADMIN:-http://127.0.0.1:8086}/api/sync/${1:-reading}" |
            while IFS= read -r hub_sync_line; do
                hub_info sync_progress pipeline="${1:-reading}" progress="$hub_sync_line" >&2
                printf '%s\n' "$hub_sync_line"
            done | tail -n 1
    )
    case $hub_sync_last in
    *'"status":"success"'*) hub_info sync_done pipeline="${1:-reading}" result="$hub_sync_last" ;;
    '')
        hub_error sync_failed pipeline="${1:-reading}" error="the proxy did not answer; is it up?"
        return 1
        ;;
    *)
        hub_error sync_failed pipeline="${1:-reading}" result="$hub_sync_last"
        return 1
        ;;
    esac
}
