"""The configuration files of a Slurm site, as text."""

from dataclasses import dataclass
from textwrap import dedent

CLUSTER = "lab"
PARTITION = "lent"
CONTROLLER = "slurm"
PLACEHOLDERS = (
    f"NodeName=placeholder-[1-8] NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000000 Gres=gpu:8 Feature={PARTITION}"
    ' State=DOWN Reason="stands for nodes that may join"'
)


@dataclass(frozen=True)
class Addresses:
    """Fixed addresses of the site's daemons: names would cost slurmd half a minute each time one did not resolve."""

    slurmctld: str
    slurmrestd: str
    slurmdbd: str


def slurm_conf(addresses: Addresses) -> str:
    return dedent(f"""\
        ClusterName={CLUSTER}
        SlurmctldHost={CONTROLLER}({addresses.slurmctld})
        SlurmUser=slurm
        AuthType=auth/slurm
        CredType=cred/slurm
        AuthAltTypes=auth/jwt
        AuthAltParameters=jwt_key=/etc/slurm/jwt_hs256.key
        # a requeued job is held back until credentials of its last run are surely over
        AuthInfo=cred_expire=5
        StateSaveLocation=/var/spool/slurmctld
        SlurmdSpoolDir=/var/spool/slurmd
        SlurmctldParameters=cloud_reg_addrs,enable_configless
        SlurmdParameters=config_overrides
        MaxNodeCount=256
        TreeWidth=65533
        ReturnToService=2
        SlurmdTimeout=30
        MessageTimeout=10
        ProctrackType=proctrack/linuxproc
        TaskPlugin=task/none
        SelectType=select/cons_tres
        SelectTypeParameters=CR_Core
        GresTypes=gpu
        # without it a job that names no memory is booked with all of a placeholder's
        DefMemPerCPU=100
        SchedulerType=sched/backfill
        # a job starts within a second of a node's arrival
        SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
        PreemptType=preempt/partition_prio
        PreemptMode=REQUEUE
        JobRequeue=1
        KillWait=5
        CompleteWait=0
        EnforcePartLimits=NO
        # ended jobs stay visible for as long as a test may look at them
        MinJobAge=7200
        AccountingStorageType=accounting_storage/slurmdbd
        AccountingStorageHost={addresses.slurmdbd}
        AccountingStorageTRES=gres/gpu
        JobAcctGatherType=jobacct_gather/none
        # Slurm refuses a job that no node of its partition could ever run, and a partition without nodes runs none.
        # These stand for the nodes that may come: always DOWN, as large as any job, as many as a job may ask for
        {PLACEHOLDERS}
        NodeSet={PARTITION} Feature={PARTITION}
        PartitionName={PARTITION} Nodes={PARTITION} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
        PartitionName=urgent Nodes={PARTITION} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
    """)


def gres_conf() -> str:
    return "AutoDetect=off\nName=gpu File=/dev/nvidia[0-7]\n"


def cgroup_conf() -> str:
    return "CgroupPlugin=disabled\n"


def slurmdbd_conf(addresses: Addresses) -> str:
    return dedent(f"""\
        AuthType=auth/slurm
        AuthAltTypes=auth/jwt
        AuthAltParameters=jwt_key=/etc/slurm/jwt_hs256.key
        DbdHost=slurmdbd
        DbdAddr={addresses.slurmdbd}
        SlurmUser=slurm
        StorageType=accounting_storage/mysql
        StorageUser=slurm
    """)
