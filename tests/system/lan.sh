# shellcheck shell=bash
# Another host on the network of a gateway, for the scripts beside this file to source. Needs root.
#
#   lan_need                makes the Python environment with a DNS-SD library ($lan_python)
#   lan_join NETWORK        a network namespace of its own ($lan_other, 10.97.0.2) with a cable to the gateway's (10.97.0.1):
#                           NETWORK is the name of a namespace or the id of a process in it
#   lan_leave               takes it away again

lan_other=pentad-other-$$
lan_python=tests/.venv-lan/bin/python

lan_need() {
  local wanted=tests/counterparts/requirements-lan.txt environment=tests/.venv-lan
  [ "$(id -u)" -eq 0 ] || { echo "network namespaces need root" >&2; return 1; }
  if ! cmp -s "$wanted" "$environment/installed"; then
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$environment/installed"
  fi
}

lan_join() {
  local network=$1 there=(ip -n "$1")
  case $network in *[!0-9]*) ;; *) there=(nsenter -t "$network" -n ip) ;; esac
  ip netns add "$lan_other"
  ip -n "$lan_other" link add wire type veth peer name wire netns "$network"
  lan_wire 1 "${there[@]}"
  lan_wire 2 ip -n "$lan_other"
}

# lan_wire NUMBER COMMAND...: one end of the cable, by the `ip` of its side.
lan_wire() {
  local number=$1
  shift
  "$@" link set lo up
  "$@" address add "10.97.0.$number/24" dev wire
  "$@" link set wire up
  # There is no router, so where groups are has to be said.
  "$@" route add 224.0.0.0/4 dev wire
}

lan_leave() { ip netns del "$lan_other" 2>/dev/null || true; }
