#!/usr/bin/env bash
# A Slurm of two nodes, n1 and n2, on this machine, for tests/workflows/reproduce/test_slurm.py. Needs root and Debian's
# packages slurmctld, slurmd, slurm-client and munge.
#
#   export SLURM_CONF=$(requirements/slurm_here.sh FOLDER)     prints the path of its configuration
#   requirements/slurm_here.sh FOLDER stop
set -euo pipefail

here=$(realpath -m "$1")
if [[ ${2:-} == stop ]]; then
    daemons="slurm(d|ctld) .*$here/slurm.conf"
    pkill -f "$daemons" || true
    # They write into the folder until they have ended.
    for _ in $(seq 100); do
        pgrep -f "$daemons" >/dev/null || exit 0
        sleep 0.1
    done
    pkill -KILL -f "$daemons" || true
    exit 0
fi

mkdir -p "$here"/{state,n1,n2}
cat >"$here/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Both nodes may claim all processors and all memory of this machine.
SlurmdParameters=config_overrides
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/%n
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/%n/slurmd.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/%n/slurmd.log
ReturnToService=2
MinJobAge=300
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=16821 CPUs=16 RealMemory=1000
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=16822 CPUs=16 RealMemory=1000
PartitionName=gpu Nodes=n1,n2 Default=YES State=UP
CONF

export SLURM_CONF=$here/slurm.conf
if ! pgrep -x munged >/dev/null; then
    install -d -o munge -g munge /run/munge
    runuser -u munge -- munged
fi
slurmctld -f "$SLURM_CONF" >&2
for node in n1 n2; do slurmd -f "$SLURM_CONF" -N "$node" >&2; done
for _ in $(seq 100); do
    if [[ $(sinfo --noheader --format=%t 2>/dev/null) == idle ]]; then
        echo "$SLURM_CONF"
        exit 0
    fi
    sleep 0.2
done
echo "the nodes did not come up; logs are in $here" >&2
exit 1
