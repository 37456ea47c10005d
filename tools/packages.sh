# Sourced by ./check and ./reproduce: what they need of Debian's packages.
#
#     packages_ensure "NEEDED…" "WANTED…"
#
# installs what is missing of both, as root or with sudo. Status 1, after saying why, when something of NEEDED is still not
# there; what is missing of WANTED is only named. Where there is no apt-get nothing is installed, and 0 is returned.

packages_missing() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
}

packages_as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

packages_install() { # LOG PACKAGE…
    local log=$1
    shift
    packages_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1
}

packages_ensure() {
    local needed wanted package log
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || return 0
    needed=$(packages_missing $1) wanted=$(packages_missing $2)
    [ -n "$needed$wanted" ] || return 0
    echo "not installed:" $needed $wanted
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        echo "not root, and no sudo without password; to be run first: apt-get install" $needed $wanted
        [ -z "$needed" ]
        return
    fi
    log=$(mktemp)
    packages_as_root apt-get update -q >"$log" 2>&1
    if ! packages_install "$log" $needed $wanted; then
        # What only some tests need may be missing from other releases of Debian.
        if [ -n "$needed" ] && ! packages_install "$log" $needed; then
            tail -n 20 "$log"
            echo "apt-get install failed:" $needed
            rm -f "$log"
            return 1
        fi
        for package in $wanted; do packages_install "$log" "$package" || echo "without $package: what needs it is skipped"; done
    fi
    rm -f "$log"
}
