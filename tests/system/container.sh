# shellcheck shell=bash
# A Debian 12 machine in a container with systemd as its first process, for the scripts beside this file to source.
#
#   container_build         the root file system, from Debian's registry; kept, and built again when this file changes
#   container_start         boots a fresh copy of it; the copy is an overlay, the root stays as it is
#   container_stop          powers it off
#   inside COMMAND...       runs a command in it
#
# Its processes are in control groups of their own, its network is its own. Nothing is registered with the machine's
# systemd, which need not even be there. Needs root.

container_folder=${PENTAD_SYSTEM:-${CARGO_TARGET_DIR:-target}/system}
container_packages=systemd-sysv,dbus,procps,curl,man-db,mandoc,bash-completion
container_leader=
container_nspawn=

container_need() {
  local tool missing=()
  [ "$(id -u)" -eq 0 ] || { echo "a container needs root" >&2; return 1; }
  for tool in mmdebstrap:mmdebstrap systemd-nspawn:systemd-container nsenter:util-linux; do
    command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
  done
  [ "${#missing[@]}" -eq 0 ] || { echo "missing: apt-get install ${missing[*]}" >&2; return 1; }
}

container_build() {
  mkdir -p "$container_folder"
  container_folder=$(cd "$container_folder" && pwd)
  local root=$container_folder/root key mirror
  key=$(sha256sum <"${BASH_SOURCE[0]}")
  [ "$(cat "$container_folder/root.key" 2>/dev/null)" != "$key" ] || return 0
  rm -rf --one-file-system "$root"
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 'Component: main' |
    sort -u | head -n 1)
  mmdebstrap --quiet --variant=minbase --include="$container_packages" --aptopt='Acquire::Languages "none"' \
    --aptopt='APT::Install-Recommends "false"' bookworm "$root" "deb ${mirror:-http://deb.debian.org/debian} bookworm main"
  echo gateway >"$root/etc/hostname"
  printf '127.0.0.1 localhost gateway\n::1 localhost\n' >"$root/etc/hosts"
  # An empty machine id would make each boot a first boot.
  echo 00112233445566778899aabbccddeeff >"$root/etc/machine-id"
  rm -f "$root/etc/resolv.conf" "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
  mkdir -p "$root/etc/systemd/journald.conf.d" "$root/var/log/journal"
  # Tests make more noise than a service may.
  printf '[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/tests.conf"
  local unit
  for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
  echo "$key" >"$container_folder/root.key"
}

# Where a control group of this machine may be made: every hierarchy that systemd uses in the container.
container_groups() {
  local each
  for each in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ ! -w "$each/cgroup.procs" ] || echo "$each/pentad-system-$$"
  done
}

# container_start [options of systemd-nspawn]
container_start() {
  local live=$container_folder/live group options=() child deadline state=
  mkdir -p "$live/mount"
  rm -rf --one-file-system "$live/upper" "$live/work"
  mkdir -p "$live/upper" "$live/work"
  mount -t overlay pentad-system -o "lowerdir=$container_folder/root,upperdir=$live/upper,workdir=$live/work" "$live/mount"
  if [ ! -d /run/systemd/system ]; then
    # There is no systemd that could make a scope for it.
    options+=(--keep-unit)
    for group in $(container_groups); do mkdir -p "$group"; done
  fi
  (
    if [ ! -d /run/systemd/system ]; then
      for group in $(container_groups); do echo "$BASHPID" >"$group/cgroup.procs"; done
    fi
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    # The right to load filters is what DevicePolicy= and IPAddressDeny= need.
    exec setsid systemd-nspawn --quiet --boot --register=no --console=pipe --private-network \
      --system-call-filter=bpf --capability=CAP_BPF --hostname=gateway "${options[@]}" "$@" -D "$live/mount"
  ) </dev/null >"$live/console" 2>&1 &
  container_nspawn=$!
  deadline=$((SECONDS + 60))
  while [ "$SECONDS" -lt "$deadline" ]; do
    if [ -z "$container_leader" ]; then
      for child in $(cat "/proc/$container_nspawn/task/$container_nspawn/children" 2>/dev/null); do
        [ "$(cat "/proc/$child/comm" 2>/dev/null)" != systemd ] || container_leader=$child
      done
    fi
    if [ -n "$container_leader" ]; then
      state=$(inside systemctl is-system-running --wait 2>/dev/null) || true
      case $state in running | degraded) return 0 ;; esac
    fi
    sleep 0.2
  done
  echo "the container did not come up ($state):" >&2
  tail -n 20 "$live/console" >&2
  return 1
}

inside() {
  nsenter -t "$container_leader" -m -u -i -n -p -C -r -w env -i HOME=/root TERM=dumb LANG=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# container_put FILE PLACE [MODE]
container_put() { install -D -m "${3:-0644}" "$1" "/proc/$container_leader/root$2"; }

container_stop() {
  local group
  if [ -n "$container_leader" ]; then
    # systemd's own signal for a clean power-off; a container that does not heed it is cut off.
    kill -s RTMIN+4 "$container_leader" 2>/dev/null || true
    timeout 30 tail --pid="$container_nspawn" -f /dev/null || kill -9 "$container_leader" 2>/dev/null || true
  fi
  if [ -n "$container_nspawn" ]; then
    wait "$container_nspawn" 2>/dev/null || true
  fi
  container_leader='' container_nspawn=''
  if mountpoint -q "$container_folder/live/mount"; then
    umount "$container_folder/live/mount" || umount -l "$container_folder/live/mount"
  fi
  for group in $(container_groups); do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
