# shellcheck shell=bash
# An apt of our own for the scripts beside this file to source: its lists, its sources, its architectures. The machine's is
# not touched, and nothing is installed.
#
#   apt_own FOLDER SUITE ARCHITECTURE...    reads the package lists, and leaves in `options` what apt must be told

apt_own() {
  local apt=$1 suite=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror host architecture
  shift 2
  if [ ! -e "$keyring" ]; then
    echo "$keyring is missing: apt-get install debian-archive-keyring" >&2
    return 1
  fi
  host=$(dpkg --print-architecture)
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 'Component: main' 2>/dev/null |
    sort -u | head -n 1)
  rm -rf "$apt"
  mkdir -p "$apt/lists/partial" "$apt/parts" "$apt/cache/archives/partial"
  echo "deb [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} $suite main" >"$apt/sources.list"
  options=(-qq -o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::Etc::SourceParts=$apt/parts"
    -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "APT::Sandbox::User=$(id -un)"
    -o "APT::Architecture=$host" -o Acquire::Languages=none -o Acquire::Retries=3)
  for architecture in "$host" "$@"; do
    options+=(-o "APT::Architectures::=$architecture")
  done
  apt-get "${options[@]}" update >&2 || { echo "the package lists cannot be read; is there a network?" >&2; return 1; }
}
