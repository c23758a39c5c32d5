#include "runtime/report.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "codec/json.h"

static void put(struct json_object *object, const char *key, uint64_t value)
{
        json_object_object_add(object, key, json_object_new_uint64(value));
}

static struct json_object *add(struct json_object *object, const char *key)
{
        struct json_object *below = json_object_new_object();
        json_object_object_add(object, key, below);
        return below;
}

static void put_cpu(struct json_object *data, const struct cgroup_stats *s)
{
        struct json_object *cpu = add(data, "cpu");
        struct json_object *usage = add(cpu, "usage");
        put(usage, "total", s->cpu_total_ns);
        if (s->cpu_each_length) {
                struct json_object *each = json_object_new_array();
                for (size_t i = 0; i < s->cpu_each_length; i++)
                        json_object_array_add(each, json_object_new_uint64(s->cpu_each_ns[i]));
                json_object_object_add(usage, "percpu", each);
        }
        put(usage, "kernel", s->cpu_kernel_ns);
        put(usage, "user", s->cpu_user_ns);
        struct json_object *throttling = add(cpu, "throttling");
        put(throttling, "periods", s->throttle_periods);
        put(throttling, "throttledPeriods", s->throttled_periods);
        put(throttling, "throttledTime", s->throttled_ns);
}

static void put_memory(struct json_object *data, const struct cgroup_stats *s)
{
        struct json_object *memory = add(data, "memory");
        struct json_object *usage = add(memory, "usage");
        put(usage, "limit", s->memory_limit_bytes);
        put(usage, "usage", s->memory_bytes);
        put(usage, "max", s->memory_max_bytes);
        put(usage, "failcnt", s->memory_failures);
        struct json_object *swap = add(memory, "swap");
        put(swap, "limit", s->swap_limit_bytes);
        put(swap, "usage", s->swap_bytes);
        struct json_object *kernel = add(memory, "kernel");
        put(kernel, "usage", s->kernel_bytes);
        struct json_object *raw = add(memory, "raw");
        for (char **entry = s->memory_detail; entry && *entry; entry++) {
                const char *equals = strchr(*entry, '=');
                auto_free char *key = xstrndup(*entry, (size_t)(equals - *entry));
                put(raw, key, strtoull(equals + 1, NULL, 10));
        }
        put(memory, "cache",
            s->memory_detail ? strtoull(json_map_get(s->memory_detail, "cache")
                                                ? json_map_get(s->memory_detail, "cache")
                                                : "0",
                                        NULL, 10)
                             : 0);
        if (s->oom_kill) /* who searches for oom in what `events` prints wants to find one */
                put(memory, "oomKill", s->oom_kill);
}

static void put_io_entry(struct json_object *list, const struct cgroup_io_stat *io, const char *op,
                         uint64_t value)
{
        struct json_object *entry = json_object_new_object();
        put(entry, "major", io->major);
        put(entry, "minor", io->minor);
        json_object_object_add(entry, "op", json_object_new_string(op));
        put(entry, "value", value);
        json_object_array_add(list, entry);
}

static void put_io(struct json_object *data, const struct cgroup_stats *s)
{
        struct json_object *blkio = add(data, "blkio");
        struct json_object *bytes = json_object_new_array();
        struct json_object *operations = json_object_new_array();
        for (size_t i = 0; i < s->io_length; i++) {
                put_io_entry(bytes, &s->io[i], "Read", s->io[i].read_bytes);
                put_io_entry(bytes, &s->io[i], "Write", s->io[i].write_bytes);
                put_io_entry(operations, &s->io[i], "Read", s->io[i].read_operations);
                put_io_entry(operations, &s->io[i], "Write", s->io[i].write_operations);
        }
        json_object_object_add(blkio, "ioServiceBytesRecursive", bytes);
        json_object_object_add(blkio, "ioServicedRecursive", operations);
}

char *report_stats(const char *id, const struct cgroup_stats *stats)
{
        auto_json event = json_object_new_object();
        json_object_object_add(event, "type", json_object_new_string("stats"));
        json_object_object_add(event, "id", json_object_new_string(id));
        struct json_object *data = add(event, "data");
        put_cpu(data, stats);
        put_memory(data, stats);
        struct json_object *pids = add(data, "pids");
        put(pids, "current", stats->pids);
        if (stats->pids_limit != UINT64_MAX)
                put(pids, "limit", stats->pids_limit);
        put_io(data, stats);
        add(data, "hugetlb");
        return json_text(event, false);
}

/* Which blank-separated column is headed PID. */
static int pid_column(const char *header)
{
        auto_free char *copy = xstrdup(header);
        int column = 0;
        char *saved;
        for (char *word = strtok_r(copy, " \t", &saved); word;
             word = strtok_r(NULL, " \t", &saved), column++)
                if (streq(word, "PID"))
                        return column;
        return -1;
}

static bool is_listed(const char *line, int column, const pid_t *pids, size_t length)
{
        auto_free char *copy = xstrdup(line);
        char *saved;
        char *word = strtok_r(copy, " \t", &saved);
        while (word && column-- > 0)
                word = strtok_r(NULL, " \t", &saved);
        uint32_t pid;
        if (!word || str_to_u32(word, &pid) < 0)
                return false;
        for (size_t i = 0; i < length; i++)
                if ((uint32_t)pids[i] == pid)
                        return true;
        return false;
}

int report_filter_ps(const char *text, const pid_t *pids, size_t length, struct err *err)
{
        auto_strv lines = str_split(text, '\n');
        int column = pid_column(lines[0]);
        if (column < 0)
                return err_plain(err, EINVAL, "couldn't find PID field in ps output");
        puts(lines[0]);
        for (char **line = lines + 1; *line; line++)
                if (is_listed(*line, column, pids, length))
                        puts(*line);
        return 0;
}
