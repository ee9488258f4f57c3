"""Claims about the cluster that the tests of this folder start."""

import psutil
import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_jobs_of_one_gpu_see_different_ones(cluster, tmp_path, wait_for):
    command = f"--wrap=echo $CUDA_VISIBLE_DEVICES > {tmp_path}/$SLURM_JOB_ID; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    for _ in range(2):
        cluster.ask("sbatch", "--partition=gpu", "--gpus=1", "--mem=100", "--output=/dev/null", command)
    wait_for(lambda: len([path for path in tmp_path.iterdir() if path.read_text()]) == 2)
    seen = [path.read_text().strip() for path in tmp_path.iterdir()]
    (tmp_path / "go").touch()
    assert sorted(seen) == ["0", "1"]


def test_it_listens_on_this_machine_alone(cluster):
    listening = [
        connection.laddr.ip
        for daemon in cluster.daemons
        for connection in psutil.Process(daemon.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4 and set(listening) == {"127.0.0.1"}


def test_it_leaves_nothing_behind_not_even_its_jobs(start_cluster, tmp_path, wait_for):
    pid = tmp_path / "pid"
    with start_cluster() as cluster:
        cluster.ask("sbatch", "--output=/dev/null", f"--wrap=echo $$ > {pid}; sleep 100")
        wait_for(lambda: pid.exists() and pid.read_text())
        processes = [*(psutil.Process(daemon.pid) for daemon in cluster.daemons), psutil.Process(int(pid.read_text()))]
        assert all(process.is_running() for process in processes)
    assert not any(process.is_running() for process in processes)
    assert not cluster.folder.exists()
