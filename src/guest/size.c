/* How large a machine is, and what its container's limits mean for it and for the host. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"
#include "guest/guest.h"

/* Beside the limit of the container: the guest's kernel (GUEST_OVERHEAD_BYTES) with the machine's
 * program and the shim; and for each processor what the software one keeps at most of what it
 * decoded and translated. */
#define OVERHEAD_BYTES       ((uint64_t)104 << 20)
#define CPU_OVERHEAD_BYTES   ((uint64_t)620 << 20)
#define PAGES_PART           64                   /* of the memory: the guest's table of pages */
#define GUEST_OVERHEAD_BYTES ((uint64_t)64 << 20) /* the guest's kernel and agent */
#define DEFAULT_MEMORY_BYTES ((uint64_t)1 << 30)
#define MINIMUM_MEMORY_BYTES ((uint64_t)128 << 20)
#define MEMORY_UNIT_BYTES    ((uint64_t)1 << 20)
#define MEMORY_MAX_BYTES     ((uint64_t)1 << 40)
#define DEFAULT_PERIOD_US    100000

/* A limit beyond what the host has is none. */
static uint64_t host_bytes(void)
{
        return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t guest_memory_for(int64_t limit_bytes)
{
        uint64_t most = host_bytes() & ~(MEMORY_UNIT_BYTES - 1);
        uint64_t bytes = (uint64_t)limit_bytes + GUEST_OVERHEAD_BYTES;
        if (bytes > most)
                bytes = most;
        if (bytes < MINIMUM_MEMORY_BYTES)
                bytes = MINIMUM_MEMORY_BYTES;
        return (bytes + MEMORY_UNIT_BYTES - 1) & ~(MEMORY_UNIT_BYTES - 1);
}

static const struct oci_resources *resources_of(const struct oci_spec *spec)
{
        return spec->linux_ ? spec->linux_->resources : NULL;
}

uint64_t guest_memory_bytes(const struct oci_spec *spec)
{
        const struct oci_resources *resources = resources_of(spec);
        const struct oci_memory *memory = resources ? resources->memory : NULL;
        if (!memory || !memory->has_limit || memory->limit <= 0)
                return DEFAULT_MEMORY_BYTES;
        return guest_memory_for(memory->limit);
}

unsigned guest_cpus_for(const struct oci_cpu *cpu)
{
        uint64_t period_us = cpu && cpu->has_period_us && cpu->period_us ? cpu->period_us
                                                                         : DEFAULT_PERIOD_US;
        if (!cpu || !cpu->has_quota_us || cpu->quota_us <= 0)
                return 1;
        uint64_t quota_us = (uint64_t)cpu->quota_us;
        uint64_t cpus = quota_us / period_us + (quota_us % period_us != 0);
        return cpus > GUEST_CPUS_MAX ? GUEST_CPUS_MAX : (unsigned)cpus;
}

unsigned guest_cpus(const struct oci_spec *spec)
{
        const struct oci_resources *resources = resources_of(spec);
        return guest_cpus_for(resources ? resources->cpu : NULL);
}

int guest_size(const struct oci_spec *spec, struct guest_size *ret, struct err *err)
{
        const char *memory = json_map_get(spec->annotations, GUEST_MEMORY_ANNOTATION);
        const char *cpus = json_map_get(spec->annotations, GUEST_CPUS_ANNOTATION);
        struct guest_size size = { .memory_bytes = guest_memory_bytes(spec),
                                   .cpus = guest_cpus(spec) };
        const struct oci_resources *resources = resources_of(spec);
        bool limited = resources && resources->memory && resources->memory->has_limit;
        uint64_t bytes;
        if (memory) {
                if (str_to_size(memory, &bytes) < 0 || bytes == 0 || bytes > MEMORY_MAX_BYTES)
                        return err_plain(err, EINVAL,
                                         "annotation " GUEST_MEMORY_ANNOTATION ": '%s' is no size "
                                         "such as 512m, up to 1t",
                                         memory);
                uint64_t most = guest_memory_for((int64_t)bytes);
                if (limited && (int64_t)bytes < resources->memory->limit)
                        return err_plain(err, EINVAL,
                                         "annotation " GUEST_MEMORY_ANNOTATION
                                         ": '%s' is less than "
                                         "the memory limit",
                                         memory);
                size.memory_bytes = most;
        }
        size.cpus_max = size.cpus;
        if (cpus && (str_to_u32(cpus, &size.cpus_max) < 0 || size.cpus_max < size.cpus ||
                     size.cpus_max > GUEST_CPUS_MAX))
                return err_plain(err, EINVAL,
                                 "annotation " GUEST_CPUS_ANNOTATION ": '%s' is not a number of "
                                 "processors from %u to %d",
                                 cpus, size.cpus, GUEST_CPUS_MAX);
        *ret = size;
        return 0;
}

uint64_t guest_overhead_bytes(uint64_t machine_bytes, unsigned cpus)
{
        return OVERHEAD_BYTES + cpus * CPU_OVERHEAD_BYTES + machine_bytes / PAGES_PART;
}

static void add_overhead(int64_t *bytes, uint64_t overhead)
{
        if (*bytes > 0)
                *bytes = *bytes > INT64_MAX - (int64_t)overhead ? INT64_MAX
                                                                : *bytes + (int64_t)overhead;
}

void guest_host_limits(struct oci_resources *resources, uint64_t machine_bytes, unsigned cpus)
{
        struct oci_memory *memory = resources->memory;
        uint64_t overhead = guest_overhead_bytes(machine_bytes, cpus);
        if (memory && memory->has_limit)
                add_overhead(&memory->limit, overhead);
        if (memory && memory->has_swap)
                add_overhead(&memory->swap, overhead);
        if (memory && memory->has_reservation)
                add_overhead(&memory->reservation, overhead);
        if (resources->pids)
                resources->pids->has_limit = false;
        strv_free(resources->unified);
        resources->unified = NULL;
}
