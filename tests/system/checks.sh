# shellcheck shell=bash
# Counting checks, for the scripts beside this file to source: `check "what must hold" COMMAND...` runs the command and
# goes on whether it holds or not; `finish` says how many held, and fails if one did not.

held=0
broken=0
output=$(mktemp)

check() {
  local what=$1
  shift
  if "$@" >"$output" 2>&1; then
    held=$((held + 1))
    echo "ok    $what"
  else
    broken=$((broken + 1))
    echo "FAIL  $what"
    sed 's/^/      /' "$output" | tail -n 30
  fi
}

# within SECONDS COMMAND...: until it succeeds, or the time is up.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      "$@"
      return
    fi
    sleep 0.2
  done
}

not() { ! "$@"; }

# shellcheck disable=SC2154
finish() {
  rm -f "$output"
  echo "$held held, $broken did not"
  [ "$broken" -eq 0 ]
}
