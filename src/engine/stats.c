#include "engine/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "engine/core.h"
#include "sys/cgroup.h"

struct sample_job {
        struct engine *engine;
        char *cgroup; /* NULL: it does not run */
        struct instance_stats stats;
        struct cgroup_stats group;
        int r;
        struct err err;
        instance_sampled *done;
        void *arg;
};

/* First line of /proc/stat: all time of all CPUs but guests', which is in user's. */
static uint64_t read_system_cpu(void)
{
        auto_free char *text = NULL;
        unsigned long long t[8] = { 0 }, sum = 0;
        if (file_read(AT_FDCWD, "/proc/stat", 1 << 20, &text, NULL, NULL) < 0 ||
            sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3],
                   &t[4], &t[5], &t[6], &t[7]) < 7)
                return 0;
        for (size_t i = 0; i < ELEMENTS(t); i++)
                sum += t[i];
        return sum * (uint64_t)(NS_PER_S / sysconf(_SC_CLK_TCK));
}

static uint64_t host_memory(void)
{
        struct sysinfo info;
        return sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : 0;
}

static void add_io(struct instance_stats *stats, const struct cgroup_io_stat *io)
{
        const struct instance_blkio both[] = {
                { io->major, io->minor, "read", io->read_bytes, io->read_operations },
                { io->major, io->minor, "write", io->write_bytes, io->write_operations },
        };
        stats->blkio = xrealloc(stats->blkio, stats->blkio_length + 2, sizeof(*stats->blkio));
        memcpy(&stats->blkio[stats->blkio_length], both, sizeof(both));
        stats->blkio_length += 2;
}

/* Borrows what `group` owns, but for blkio. */
static void fill(struct instance_stats *s, const struct cgroup_stats *group)
{
        uint64_t memory = host_memory();
        *s = (struct instance_stats){
                .read_ns = clock_realtime_ns(),
                .cpu_total_ns = group->cpu_total_ns,
                .cpu_user_ns = group->cpu_user_ns,
                .cpu_kernel_ns = group->cpu_kernel_ns,
                .cpu_each_ns = group->cpu_each_ns,
                .cpu_each_length = group->cpu_each_length,
                .system_cpu_ns = read_system_cpu(),
                .cpus_online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN),
                .throttle_periods = group->throttle_periods,
                .throttled_periods = group->throttled_periods,
                .throttled_ns = group->throttled_ns,
                .memory_bytes = group->memory_bytes,
                .memory_max_bytes = group->memory_max_bytes,
                .memory_limit_bytes = group->memory_limit_bytes < memory ? group->memory_limit_bytes
                                                                         : memory,
                .memory_failures = group->memory_failures,
                .memory_detail = group->memory_detail,
                .cgroup_v2 = group->v2,
                .pids = group->pids,
                .pids_limit = group->pids_limit == UINT64_MAX ? 0 : group->pids_limit,
        };
        for (size_t i = 0; i < group->io_length; i++)
                add_io(s, &group->io[i]);
}

static void sample_in_worker(void *arg)
{
        struct sample_job *job = arg;
        if (!job->cgroup)
                return;
        auto_cgroup cgroup = NULL;
        job->r = cgroup_prepare(job->cgroup, CGROUP_BIT(CGROUP_CPU) | CGROUP_BIT(CGROUP_BLKIO),
                                &cgroup, &job->err);
        if (job->r < 0)
                job->r = cgroup_prepare(job->cgroup, 0, &cgroup, &job->err);
        if (job->r == 0)
                job->r = cgroup_stats(cgroup, &job->group, &job->err);
        if (job->r == 0)
                fill(&job->stats, &job->group);
}

static void sample_done(void *arg)
{
        struct sample_job *job = arg;
        job->done(job->arg, job->r, job->r < 0 ? &job->err : NULL, job->r < 0 ? NULL : &job->stats);
        free(job->stats.blkio);
        cgroup_stats_finish(&job->group);
        free(job->cgroup);
        free(job);
}

void instance_sample(struct instance *instance, instance_sampled *done, void *arg)
{
        struct sample_job *job = new0(struct sample_job);
        *job = (struct sample_job){ .engine = instance_engine(instance), .done = done, .arg = arg };
        if (instance_is_running(instance))
                job->cgroup = instance_cgroup_path(job->engine, instance);
        workers_submit(job->engine->workers, sample_in_worker, sample_done, job);
}
