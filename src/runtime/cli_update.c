#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "oci/runtime_spec.h"
#include "runtime/cli.h"
#include "runtime/container.h"

#define RESOURCES_SIZE_MAX ((size_t)1 << 20)

enum number_kind { SIGNED, UNSIGNED, UNSIGNED16, BYTES, TEXT };
enum section { MEMORY, CPU, PIDS, BLOCK_IO };

/* One row per flag: where its number goes. */
static const struct update_flag {
        const char *name;
        enum section section;
        enum number_kind kind;
        size_t member, has; /* offset of the value and of its has_ flag */
} update_flags[] = {
#define ROW(flag, section, kind, type, member)                                                     \
        {                                                                                          \
                flag, section, kind, offsetof(struct type, member),                                \
                        offsetof(struct type, has_##member)                                        \
        }
        ROW("memory", MEMORY, BYTES, oci_memory, limit),
        ROW("memory-reservation", MEMORY, BYTES, oci_memory, reservation),
        ROW("memory-swap", MEMORY, BYTES, oci_memory, swap),
        ROW("kernel-memory", MEMORY, BYTES, oci_memory, kernel),
        ROW("kernel-memory-tcp", MEMORY, BYTES, oci_memory, kernel_tcp),
        ROW("cpu-share", CPU, UNSIGNED, oci_cpu, shares),
        ROW("cpu-shares", CPU, UNSIGNED, oci_cpu, shares),
        ROW("cpu-quota", CPU, SIGNED, oci_cpu, quota_us),
        ROW("cpu-period", CPU, UNSIGNED, oci_cpu, period_us),
        ROW("cpu-burst", CPU, UNSIGNED, oci_cpu, burst_us),
        ROW("cpu-rt-period", CPU, UNSIGNED, oci_cpu, realtime_period_us),
        ROW("cpu-rt-runtime", CPU, SIGNED, oci_cpu, realtime_runtime_us),
        ROW("cpu-idle", CPU, SIGNED, oci_cpu, idle),
        ROW("pids-limit", PIDS, SIGNED, oci_pids, limit),
        ROW("blkio-weight", BLOCK_IO, UNSIGNED16, oci_block_io, weight),
#undef ROW
        { "cpuset-cpus", CPU, TEXT, offsetof(struct oci_cpu, cpus), 0 },
        { "cpuset-mems", CPU, TEXT, offsetof(struct oci_cpu, mems), 0 },
};

enum { FLAG_FIRST = 1000, FLAG_L3_CACHE = 2000, FLAG_MEM_BW, FLAG_CHECK };

static void *section_of(struct oci_resources *resources, enum section section)
{
        switch (section) {
        case MEMORY:
                if (!resources->memory)
                        resources->memory = new0(struct oci_memory);
                return resources->memory;
        case CPU:
                if (!resources->cpu)
                        resources->cpu = new0(struct oci_cpu);
                return resources->cpu;
        case PIDS:
                if (!resources->pids)
                        resources->pids = new0(struct oci_pids);
                return resources->pids;
        case BLOCK_IO:
                if (!resources->block_io)
                        resources->block_io = new0(struct oci_block_io);
                return resources->block_io;
        }
        return NULL;
}

static int parse_number(const char *text, enum number_kind kind, int64_t *ret)
{
        uint64_t bytes;
        if (kind == BYTES && *text != '-') {
                int r = str_to_size(text, &bytes);
                if (r < 0 || bytes > INT64_MAX)
                        return -EINVAL;
                *ret = (int64_t)bytes;
                return 0;
        }
        int r = str_to_i64(text, ret);
        if (r == 0 && kind != SIGNED && kind != BYTES && *ret < 0)
                return -ERANGE;
        return r == 0 && kind == UNSIGNED16 && *ret > UINT16_MAX ? -ERANGE : r;
}

static int set_flag(const struct update_flag *flag, const char *text,
                    struct oci_resources *resources, struct err *err)
{
        char *section = section_of(resources, flag->section);
        if (flag->kind == TEXT) {
                char **slot = (char **)(void *)(section + flag->member);
                free(*slot);
                *slot = xstrdup(text);
                return 0;
        }
        int64_t number;
        if (parse_number(text, flag->kind, &number) < 0)
                return err_plain(err, EINVAL, "invalid value for %s: %s", flag->name, text);
        if (flag->kind == UNSIGNED16)
                *(uint16_t *)(void *)(section + flag->member) = (uint16_t)number;
        else
                *(int64_t *)(void *)(section + flag->member) = number;
        *(bool *)(section + flag->has) = true;
        return 0;
}

static int read_resources(const char *path, struct oci_resources *ret, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        int r = streq(path, "-") ? file_read_fd(0, RESOURCES_SIZE_MAX, &text, &size, err)
                                 : file_read(AT_FDCWD, path, RESOURCES_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = json_decode_text(&oci_resources_shape, text, size, ret, err);
        if (r == 0)
                r = oci_resources_validate(ret, err);
        if (r < 0)
                err_wrap(err, "resources '%s'", path);
        return r;
}

static int parse(int argc, char **argv, struct oci_resources *resources,
                 struct container_change *change, struct err *err)
{
        struct option longs[ELEMENTS(update_flags) + 5] = { 0 };
        size_t n = 0;
        int flag;
        for (; n < ELEMENTS(update_flags); n++)
                longs[n] = (struct option){ update_flags[n].name, required_argument, NULL,
                                            FLAG_FIRST + (int)n };
        longs[n++] = (struct option){ "resources", required_argument, NULL, 'r' };
        longs[n++] = (struct option){ "check-before-update", no_argument, NULL, FLAG_CHECK };
        longs[n++] = (struct option){ "l3-cache-schema", required_argument, NULL, FLAG_L3_CACHE };
        longs[n++] = (struct option){ "mem-bw-schema", required_argument, NULL, FLAG_MEM_BW };
        while ((flag = cli_next(argc, argv, ":r:", longs, err)) != -1) {
                int r;
                if (flag == '?')
                        return -EINVAL;
                if (flag == FLAG_L3_CACHE || flag == FLAG_MEM_BW) {
                        *(flag == FLAG_L3_CACHE ? &change->l3_cache_schema
                                                : &change->mem_bw_schema) = optarg;
                        r = 0;
                } else if (flag == FLAG_CHECK) {
                        struct oci_memory *memory = section_of(resources, MEMORY);
                        memory->check_before_update = memory->has_check_before_update = true;
                        r = 0;
                } else if (flag == 'r') {
                        json_free(&oci_resources_shape, resources);
                        r = read_resources(optarg, resources, err);
                } else {
                        r = set_flag(&update_flags[flag - FLAG_FIRST], optarg, resources, err);
                }
                if (r < 0)
                        return r;
        }
        return cli_expect(argc, argv, 1, false, err);
}

static int update(const struct cli *cli, const char *id, struct oci_resources *resources,
                  const struct container_change *change, struct err *err)
{
        if (!state_has_machine(cli->root, id))
                return container_update(cli->root, id, change, err);
        if (change->l3_cache_schema || change->mem_bw_schema)
                return err_plain(err, EOPNOTSUPP,
                                 "container '%s' is a virtual machine: its cache and memory "
                                 "bandwidth schemata are those it was made with",
                                 id);
        return cli->machines->update(cli->root, id, resources, err);
}

int cli_update(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        struct oci_resources resources = { 0 };
        struct container_change change = { .resources = &resources };
        (void)ret_code;
        int r = parse(argc, argv, &resources, &change, err);
        if (r == 0)
                r = update(cli, argv[optind], &resources, &change, err);
        json_free(&oci_resources_shape, &resources);
        return r;
}

int cli_mounts(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        static const struct option none[] = { { NULL, 0, NULL, 0 } };
        (void)ret_code;
        if (cli_next(argc, argv, "+:", none, err) != -1)
                return -EINVAL;
        int r = cli_expect(argc, argv, 3, false, err);
        if (r < 0)
                return r;
        const char *verb = argv[optind];
        bool add = streq(verb, "add");
        if (!add && !streq(verb, "remove"))
                return err_plain(err, EINVAL, "mounts %s: unknown; it is add or remove", verb);
        r = cli_refuse_machine(cli, "mounts", argv[optind + 1], err);
        if (r < 0)
                return r;
        r = container_mounts(cli->root, argv[optind + 1], add, argv[optind + 2], err);
        return r < 0 ? err_wrap(err, "mounts of container %s", argv[optind + 1]) : 0;
}
