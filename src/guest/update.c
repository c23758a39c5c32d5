/* Resizing a machine that runs.
 *
 * Theory of operation. A limit of memory is held in three places: the container's group in the
 * guest, which is what programs feel; the balloon, by which the guest's kernel gives up what is
 * beyond; and the machine's group on the host. Less memory is taken in that order, so that the
 * host's limit, which could only kill the machine, comes when there is nothing beyond it any more.
 * More is given in the other. The balloon cannot make a machine larger than it was made.
 *
 * Processors: the host's quota, as for a container, and of the guest's processors as many work as
 * the quota fills. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "guest/control.h"
#include "guest/guest.h"
#include "guest/session.h"
#include "sys/cgroup.h"

#define CONFIG_SIZE_MAX    (2 * OCI_CONFIG_SIZE_MAX + 4096)
#define BALLOON_TIMEOUT_MS 15000
#define BALLOON_POLL_NS    (20 * NS_PER_MS)
#define MIB_SHIFT          20

struct update {
        const char *root, *id;
        int directory_fd, control_fd;
        struct shim_config config;       /* as it was made */
        struct oci_resources *resources; /* as asked, and then the host's */
        struct oci_memory memory;        /* as asked */
        struct oci_pids pids;
        int64_t limit_before; /* of memory, of the container; 0: not known */
        bool has_memory, has_cpus;
        uint64_t balloon_mib; /* wanted */
        struct control_balloon now;
        uint32_t cpus;
};

/* From that of the machine's group. */
static int64_t read_limit(const struct update *u, const struct record *record)
{
        auto_cgroup cgroup = NULL;
        struct cgroup_stats stats;
        uint64_t overhead = guest_overhead_bytes(u->config.memory_bytes, u->config.cpus_max);
        if (!record->cgroups || cgroup_open(record->cgroups, &cgroup, NULL) < 0 ||
            cgroup_stats(cgroup, &stats, NULL) < 0)
                return 0;
        uint64_t limit = stats.memory_limit_bytes;
        cgroup_stats_finish(&stats);
        return limit > overhead && limit - overhead < u->config.memory_bytes
                       ? (int64_t)(limit - overhead)
                       : 0;
}

static int check_status(const struct update *u, struct record *record, struct err *err)
{
        enum state_status status;
        int r = container_load(u->root, u->id, false, record, &status, err);
        if (r < 0)
                return r;
        if (status == STATE_PAUSED)
                return err_plain(err, EBUSY,
                                 "a paused virtual machine cannot be updated; resume it");
        if (status != STATE_RUNNING && status != STATE_CREATED)
                return err_plain(err, EINVAL, "container not running");
        return 0;
}

static int open_machine(struct update *u, struct err *err)
{
        auto_free char *directory = xasprintf("%s/%s/" STATE_MACHINE, u->root, u->id);
        auto_free char *control = xasprintf("%s/%s/" GUEST_CONTROL_NAME, u->root, u->id);
        auto_free char *text = NULL;
        size_t size;
        auto_record record = { 0 };
        int r = check_status(u, &record, err);
        if (r < 0)
                return r;
        u->directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        u->control_fd = open(control, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (u->directory_fd < 0 || u->control_fd < 0)
                return err_set(err, errno, "open the machine's directories");
        r = file_read(u->directory_fd, GUEST_CONFIG, CONFIG_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = json_decode_text(&shim_config_shape, text, size, &u->config, err);
        if (r == 0)
                u->limit_before = read_limit(u, &record);
        return r;
}

static int plan_memory(struct update *u, struct err *err)
{
        const struct oci_memory *memory = &u->memory;
        if (!memory->has_limit)
                return 0;
        uint64_t all = u->config.memory_bytes;
        uint64_t wanted = memory->limit > 0 ? guest_memory_for(memory->limit) : all;
        if (wanted > all)
                return err_plain(
                        err, EINVAL,
                        "a limit of %jd bytes takes a virtual machine of %ju MiB; this one "
                        "was made with %ju; the annotation " GUEST_MEMORY_ANNOTATION
                        " at its creation leaves room",
                        (intmax_t)memory->limit, (uintmax_t)(wanted >> MIB_SHIFT),
                        (uintmax_t)(all >> MIB_SHIFT));
        u->has_memory = true;
        u->balloon_mib = (all - wanted) >> MIB_SHIFT;
        return control_get_balloon(u->control_fd, &u->now, err);
}

static int plan_cpus(struct update *u, struct err *err)
{
        const struct oci_cpu *cpu = u->resources->cpu;
        if (!cpu || !cpu->has_quota_us)
                return 0;
        u->has_cpus = true;
        u->cpus = cpu->quota_us > 0 ? guest_cpus_for(cpu) : u->config.cpus_max;
        if (u->cpus <= u->config.cpus_max)
                return 0;
        return err_plain(err, EINVAL,
                         "that takes %u processors; this virtual machine was made with %u; the "
                         "annotation " GUEST_CPUS_ANNOTATION " at its creation leaves room",
                         u->cpus, u->config.cpus_max);
}

static void add_number(char ***argv, const char *flag, int64_t number)
{
        strv_push(argv, flag);
        strv_push_take(argv, xasprintf("%jd", (intmax_t)number));
}

/* The container's group in the guest. `limit` 0: leaves the memory. */
static int update_inside(struct update *u, int64_t limit, struct err *err)
{
        auto_agent_reply reply = { 0 };
        auto_strv argv = NULL;
        strv_push(&argv, "update");
        strv_push(&argv, "--check-before-update"); /* rather than kill for it */
        if (limit)
                add_number(&argv, "--memory", limit);
        if (u->memory.has_reservation)
                add_number(&argv, "--memory-reservation", u->memory.reservation);
        if (u->pids.has_limit)
                add_number(&argv, "--pids-limit", u->pids.limit);
        if (strv_length(argv) == 2)
                return 0;
        strv_push(&argv, GUEST_ID);
        return agent_call(u->directory_fd, argv, &reply, err);
}

static int set_cpus(struct update *u, struct err *err)
{
        struct agent_request request = { .op = AGENT_OP_CPUS, .count = u->cpus };
        auto_agent_reply reply = { 0 };
        auto_buf in = { 0 };
        auto_fd fd = -1;
        if (!u->has_cpus)
                return 0;
        int r = agent_connect(u->directory_fd, &fd, err);
        return r == 0 ? agent_ask(fd, &in, &request, &reply, err) : r;
}

static int update_host(struct update *u, struct err *err)
{
        guest_host_limits(u->resources, u->config.memory_bytes, u->config.cpus_max);
        const struct container_change change = { .resources = u->resources };
        return container_update(u->root, u->id, &change, err);
}

/* Until the guest has given up as much. */
static int fill_balloon(struct update *u, struct err *err)
{
        const struct timespec pause = { .tv_nsec = BALLOON_POLL_NS };
        int64_t deadline_ns = clock_monotonic_ns() + BALLOON_TIMEOUT_MS * NS_PER_MS;
        struct control_balloon balloon;
        int r = control_set_balloon(u->control_fd, u->balloon_mib, err);
        while (r == 0) {
                r = control_get_balloon(u->control_fd, &balloon, err);
                if (r < 0 || balloon.actual_bytes >> MIB_SHIFT >= u->balloon_mib)
                        break;
                if (clock_monotonic_ns() > deadline_ns)
                        return err_plain(err, EBUSY,
                                         "the guest uses its memory: it gave back %ju of %ju MiB",
                                         (uintmax_t)(balloon.actual_bytes >> MIB_SHIFT),
                                         (uintmax_t)u->balloon_mib);
                nanosleep(&pause, NULL);
        }
        return r;
}

static int shrink(struct update *u, struct err *err)
{
        int r = update_inside(u, u->memory.limit, err);
        if (r < 0)
                return r;
        r = fill_balloon(u, err);
        if (r == 0)
                r = update_host(u, err);
        if (r < 0) { /* as it was, or as wide as the machine was */
                int64_t before = u->limit_before
                                         ? u->limit_before
                                         : (int64_t)(u->config.memory_bytes - u->now.target_bytes);
                (void)control_set_balloon(u->control_fd, u->now.target_bytes >> MIB_SHIFT, NULL);
                (void)update_inside(u, before, NULL);
        }
        return r;
}

static int grow(struct update *u, struct err *err)
{
        int r = update_host(u, err);
        if (r == 0 && u->has_memory)
                r = control_set_balloon(u->control_fd, u->balloon_mib, err);
        return r == 0 ? update_inside(u, u->has_memory ? u->memory.limit : 0, err) : r;
}

int guest_update(const char *root, const char *id, struct oci_resources *resources, struct err *err)
{
        struct update u = {
                .root = root, .id = id, .directory_fd = -1, .control_fd = -1, .resources = resources
        };
        if (resources->memory)
                u.memory = *resources->memory;
        if (resources->pids)
                u.pids = *resources->pids;
        int r = open_machine(&u, err);
        if (r == 0)
                r = plan_memory(&u, err);
        if (r == 0)
                r = plan_cpus(&u, err);
        bool shrinks = u.has_memory && u.balloon_mib > u.now.target_bytes >> MIB_SHIFT;
        if (r == 0)
                r = shrinks ? shrink(&u, err) : grow(&u, err);
        if (r == 0)
                r = set_cpus(&u, err);
        close_fd(&u.directory_fd);
        close_fd(&u.control_fd);
        json_free(&shim_config_shape, &u.config);
        return r;
}
