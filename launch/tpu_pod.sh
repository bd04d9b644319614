#!/usr/bin/env bash
# A Cloud TPU slice, from nothing to a trained run and back to nothing: one command on every host.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_pod.sh [--dry-run] COMMAND [OPTION…] [-- ARGUMENT…]

commands, in the order of their use:
  create    asks for the slice and waits until it is there
  install   copies the committed state of this checkout to every host and installs it
  doctor    looks all hosts over at once (python -m jaxnets.doctor)
  run       trains on all hosts: what follows -- goes to python -m jaxnets.main
  attach    shows the training's output again, after the connection was lost
  delete    gives the slice back, and with it ends the cost
  all       create, install, doctor, run; where a spot slice is taken away, it starts over and goes on
            (a run in a bucket, or on a file system that all hosts mount: what a host holds is gone)

options:
  --name NAME         of the slice (default: jaxnets)
  --type TYPE         v5litepod-16, v6e-16, v4-32, … (default: v5litepod-16)
  --zone ZONE         (default: us-west4-a)
  --project PROJECT   (default: gcloud's own)
  --version VERSION   of the machines' software (default: the one for the type)
  --spot              at the price of capacity that may be taken away
  --dry-run           prints each command instead of running it

example; a bucket knows no locks, so train in one folder of it once at a time:
  launch/tpu_pod.sh all --spot --type v5litepod-16 -- --config digits --workdir gs://BUCKET/digits
TEXT
}

name=jaxnets type=v5litepod-16 zone=us-west4-a project='' version='' spot='' dry_run='' verb=''
pause=${JAXNETS_PAUSE:-30} # seconds between two looks at the slice
arguments=()

# What a host's shell says yes to where a training is under way on it.
training="[ -e jaxnets/process ] && kill -0 \$(cat jaxnets/process) 2> /dev/null"
refuse_a_second="if $training; then echo 'a training is under way here: attach to it' >&2; exit 1; fi"

main() {
  parse "$@"
  case $verb in
    create | install | doctor | run | attach | delete | all) "do_$verb" ;;
    help) usage ;;
    *) refuse "COMMAND must be create, install, doctor, run, attach, delete or all, found '$verb'" ;;
  esac
}

parse() {
  while (($#)); do
    case $1 in
      --name | --type | --zone | --project | --version)
        (($# > 1)) || refuse "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
      --spot) spot=--spot && shift ;;
      --dry-run) dry_run=1 && shift ;;
      -h | --help) verb=help && shift ;;
      --) shift && arguments=("$@") && break ;;
      -*) refuse "unknown option $1" ;;
      *)
        [[ -z $verb ]] || refuse "one COMMAND at a time, found '$verb' and '$1'"
        verb=$1 && shift
        ;;
    esac
  done
  [[ -n $verb ]] || verb=help
}

refuse() {
  echo "error: $1; launch/tpu_pod.sh --help shows what there is" >&2
  exit 2
}

do_create() {
  tpu queued-resources create "$name" --node-id "$name" --accelerator-type "$type" \
    --runtime-version "${version:-$(version_for "$type")}" ${spot:+"$spot"} || return
  wait_for_slice
}

# For days, maybe: a connection that is lost for a moment does not end it.
wait_for_slice() {
  local now missed=0
  while true; do
    now=$(state) || now="no answer"
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPENDED) fail "the slice was refused or taken away: delete it, and try another --zone or --type" ;;
      NONE | "no answer") ((++missed < 10)) || fail "the slice cannot be asked for its state: see the lines above" ;;
      *) missed=0 ;;
    esac
    echo "waiting for the slice: $now"
    sleep "$pause"
  done
}

do_install() {
  local folder=/tmp
  [[ -n $dry_run ]] || folder=$(mktemp -d)
  step git -C "$(dirname "$0")/.." archive --format tar.gz --output "$folder/jaxnets.tar.gz" HEAD || return
  tpu tpu-vm scp "$folder/jaxnets.tar.gz" "$name:jaxnets.tar.gz" --worker all || return
  [[ -n $dry_run ]] || rm -r "$folder"
  # The machines' own Python is older than jaxnets needs; uv brings one.
  on_all_hosts "$refuse_a_second"'
    set -e
    rm -rf jaxnets && mkdir jaxnets && tar xzf jaxnets.tar.gz -C jaxnets && cd jaxnets
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --python 3.12 .venv
    python3 -m uv pip install --quiet --python .venv -r requirements-tpu.txt -e ".[gcs]"'
}

do_doctor() {
  on_all_hosts 'cd jaxnets && .venv/bin/python -m jaxnets.doctor --expect tpu'
}

do_run() {
  ((${#arguments[@]})) || refuse "run needs what python -m jaxnets.main needs, after --"
  # The training outlives the connection; attach finds it again. Status 75 and 143 mean: saved, run the same again.
  on_all_hosts "$refuse_a_second
    cd jaxnets || exit
    rm -f status
    cat > train.sh <<'TRAIN'
while .venv/bin/python -m jaxnets.main$(printf ' %q' "${arguments[@]}")
      status=\$?
      [ \$status = 75 ] || [ \$status = 143 ]; do :; done
echo \$status > status
TRAIN
    setsid nohup bash train.sh > train.log 2>&1 < /dev/null &
    echo \$! > process" || return
  do_attach
}

do_attach() {
  # shellcheck disable=SC2016  # the hosts' shells are to expand it
  on_all_hosts 'cd jaxnets && [ -e process ] || { echo "no training was started here" >&2; exit 1; }
    tail -n +1 -f train.log & tail=$!
    while kill -0 $(cat process) 2> /dev/null; do sleep 1; done
    sleep 1
    kill $tail
    [ -e status ] && exit $(cat status)
    echo "the training was killed" >&2
    exit 1'
}

do_delete() {
  tpu queued-resources delete "$name" --force --quiet
}

do_all() {
  local now=NONE
  while true; do
    [[ -n $dry_run ]] || now=$(state) || fail "the slice cannot be asked for its state: see the lines above"
    case $now in
      ACTIVE) ;;
      NONE) do_create || fail "the slice could not be asked for: see the lines above" ;;
      SUSPENDING | SUSPENDED | FAILED)
        echo "the slice was refused or taken away: asking for another, to go on from the last checkpoint"
        do_delete || return
        continue
        ;;
      *) wait_for_slice ;;
    esac
    if train_on_slice; then
      echo "the run is complete; this gives the slice back: launch/tpu_pod.sh delete --name $name --zone $zone"
      return
    fi
    now=$(state) || fail "the connection is lost: the same command goes on"
    case $now in
      SUSPENDING | SUSPENDED | FAILED) ;;
      *) fail "it ended with an error or the connection was lost, and the slice is $now: see the lines above" ;;
    esac
  done
}

train_on_slice() {
  if [[ -z $dry_run && $(on_all_hosts "if $training; then echo a training; fi") == *"a training"* ]]; then
    echo "a training is under way: this attaches to it"
    do_attach
  else
    do_install && do_doctor && do_run
  fi
}

# Prints the state of the request: ACTIVE where the slice can be used, NONE where there is no request.
state() {
  local errors
  [[ -z $dry_run ]] || { echo ACTIVE && return; }
  {
    errors=$(gcloud compute tpus queued-resources describe "$name" --zone "$zone" ${project:+--project "$project"} \
      --format 'value(state.state)' 2>&1 >&3)
  } 3>&1 && return
  [[ $errors == *NOT_FOUND* ]] && echo NONE && return
  echo "$errors" >&2
  return 1
}

version_for() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

on_all_hosts() {
  tpu tpu-vm ssh "$name" --worker all --command "$1"
}

tpu() {
  step gcloud compute tpus "$@" --zone "$zone" ${project:+--project "$project"}
}

# Runs a command, or prints it as it could be typed.
step() {
  if [[ -n $dry_run ]]; then
    printf '%s' "$1"
    printf ' %q' "${@:2}"
    echo
  else
    "$@"
  fi
}

fail() {
  echo "error: $1" >&2
  exit 1
}

main "$@"
