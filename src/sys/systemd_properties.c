#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/cgroup_convert.h"
#include "sys/dbus_wire.h"
#include "sys/systemd.h"

#define CPUS_MAX      4096 /* bits of a mask */
#define BITS          (8 * sizeof(unsigned long))
#define PERIOD_US     100000
#define QUOTA_STEP_US 10000 /* systemd thinks in percents */

char *systemd_slice_path(const char *slice)
{
        if (!str_ends(slice, ".slice") || strchr(slice, '/'))
                return NULL;
        auto_free char *name = xstrndup(slice, strlen(slice) - strlen(".slice"));
        if (streq(name, "-"))
                return xstrdup("");
        auto_buf path = { 0 };
        size_t length = strlen(name);
        if (length == 0 || name[0] == '-' || name[length - 1] == '-' || strstr(name, "--"))
                return NULL;
        for (size_t end = 1; end <= length; end++)
                if (end == length || name[end] == '-')
                        buf_printf(&path, "/%.*s.slice", (int)end, name);
        return buf_take(&path);
}

void systemd_put_name(struct buf *to, const char *name, const char *signature)
{
        dbus_put_padding(to, 8);
        dbus_put_string(to, name);
        dbus_put_signature(to, signature);
}

void systemd_put_string(struct buf *to, const char *name, const char *value)
{
        systemd_put_name(to, name, "s");
        dbus_put_string(to, value);
}

void systemd_put_bool(struct buf *to, const char *name, bool value)
{
        systemd_put_name(to, name, "b");
        dbus_put_u32(to, value);
}

void systemd_put_u64(struct buf *to, const char *name, uint64_t value)
{
        systemd_put_name(to, name, "t");
        dbus_put_u64(to, value);
}

/* "infinity" is the largest number. */
static void put_limit(struct buf *to, const char *name, int64_t value)
{
        if (value != CGROUP_UNSET)
                systemd_put_u64(to, name, value < 0 ? UINT64_MAX : (uint64_t)value);
}

static uint8_t byte_of(const unsigned long *bits, size_t index)
{
        return (uint8_t)(bits[index * 8 / BITS] >> (index * 8 % BITS));
}

/* "0-3,7" as bits, the least in the first byte. */
static int put_cpus(struct buf *to, const char *name, const char *list, struct err *err)
{
        unsigned long bits[CPUS_MAX / BITS] = { 0 };
        size_t used = 0;
        if (str_empty(list))
                return 0;
        if (str_to_bits(list, bits, CPUS_MAX) < 0)
                return err_plain(err, EINVAL, "%s: '%s' is not a list of numbers", name, list);
        for (size_t i = 0; i < CPUS_MAX / 8; i++)
                if (byte_of(bits, i))
                        used = i + 1;
        systemd_put_name(to, name, "ay");
        struct dbus_array array = dbus_array_begin(to, 1);
        for (size_t i = 0; i < used; i++)
                dbus_put_byte(to, byte_of(bits, i));
        dbus_array_end(to, array);
        return 0;
}

static void put_quota(struct buf *to, int64_t quota_us, int64_t period_us)
{
        if (period_us > 0 && period_us != PERIOD_US)
                systemd_put_u64(to, "CPUQuotaPeriodUSec", (uint64_t)period_us);
        if (quota_us == CGROUP_UNSET)
                return;
        uint64_t per_second = UINT64_MAX;
        if (quota_us > 0) {
                uint64_t period = period_us > 0 ? (uint64_t)period_us : PERIOD_US;
                per_second = (uint64_t)quota_us * 1000000 / period;
                per_second = (per_second + QUOTA_STEP_US - 1) / QUOTA_STEP_US * QUOTA_STEP_US;
        }
        systemd_put_u64(to, "CPUQuotaPerSecUSec", per_second);
}

/* Files of version 2 whose content is one number, and what they are as properties. */
static const struct {
        const char *file, *property;
} unified_numbers[] = {
        { "memory.max", "MemoryMax" },          { "memory.high", "MemoryHigh" },
        { "memory.low", "MemoryLow" },          { "memory.min", "MemoryMin" },
        { "memory.swap.max", "MemorySwapMax" }, { "pids.max", "TasksMax" },
        { "cpu.weight", "CPUWeight" },
};

static int put_unified(struct buf *to, const char *file, const char *value, struct err *err)
{
        uint64_t number;
        if (streq(file, "cpuset.cpus"))
                return put_cpus(to, "AllowedCPUs", value, err);
        if (streq(file, "cpuset.mems"))
                return put_cpus(to, "AllowedMemoryNodes", value, err);
        if (streq(file, "cpu.max")) {
                char quota[24];
                long long period = PERIOD_US;
                if (sscanf(value, "%23s %lld", quota, &period) < 1 ||
                    (!streq(quota, "max") && str_to_u64(quota, &number) < 0))
                        return err_plain(err, EINVAL, "cpu.max: '%s' is not understood", value);
                put_quota(to, streq(quota, "max") ? CGROUP_MAX : (int64_t)number, period);
                return 0;
        }
        for (size_t i = 0; i < ELEMENTS(unified_numbers); i++) {
                if (!streq(unified_numbers[i].file, file))
                        continue;
                if (streq(value, "max"))
                        number = UINT64_MAX;
                else if (str_to_u64(value, &number) < 0)
                        return err_plain(err, EINVAL, "%s: '%s' is not a number", file, value);
                systemd_put_u64(to, unified_numbers[i].property, number);
        }
        return 0; /* the others have no property, and are written */
}

static int put_all_unified(struct buf *to, char *const *unified, struct err *err)
{
        int r = 0;
        for (; r == 0 && unified && *unified; unified++) {
                const char *equals = strchr(*unified, '=');
                if (!equals)
                        continue;
                auto_free char *file = xstrndup(*unified, (size_t)(equals - *unified));
                r = put_unified(to, file, equals + 1, err);
        }
        return r;
}

static int put_version_2(struct buf *to, const struct cgroup_limits *l, struct err *err)
{
        int64_t swap = CGROUP_UNSET;
        put_limit(to, "MemoryLow", l->memory_reservation_bytes);
        if (l->memory_swap_bytes != CGROUP_UNSET &&
            cgroup_swap_to_v2(l->memory_swap_bytes, l->memory_bytes, &swap) == 0)
                put_limit(to, "MemorySwapMax", swap);
        if (l->cpu_idle == 1)
                systemd_put_u64(to, "CPUWeight", 0);
        else if (l->cpu_shares > 0)
                systemd_put_u64(to, "CPUWeight", cgroup_shares_to_weight((uint64_t)l->cpu_shares));
        if (l->io_weight > 0)
                systemd_put_u64(to, "IOWeight", cgroup_blkio_to_io_weight((uint64_t)l->io_weight));
        int r = put_cpus(to, "AllowedCPUs", l->cpuset_cpus, err);
        if (r == 0)
                r = put_cpus(to, "AllowedMemoryNodes", l->cpuset_mems, err);
        return r == 0 ? put_all_unified(to, l->unified, err) : r;
}

int systemd_put_limits(struct buf *to, const struct cgroup_limits *l, bool v2, struct err *err)
{
        put_limit(to, "MemoryMax", l->memory_bytes);
        if (l->pids_max != CGROUP_UNSET)
                put_limit(to, "TasksMax", l->pids_max > 0 ? l->pids_max : CGROUP_MAX);
        put_quota(to, l->cpu_quota_us, l->cpu_period_us);
        if (v2)
                return put_version_2(to, l, err);
        if (l->cpu_shares > 0)
                systemd_put_u64(to, "CPUShares", (uint64_t)l->cpu_shares);
        if (l->io_weight > 0)
                systemd_put_u64(to, "BlockIOWeight", (uint64_t)l->io_weight);
        return 0;
}

/* The name of a major number in "Character devices:\n  1 mem\n…\nBlock devices:\n…". */
static char *device_group(const char *text, bool block, int64_t major)
{
        bool here = false;
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++) {
                long long number;
                char name[64];
                if (str_starts(*line, "Character") || str_starts(*line, "Block"))
                        here = block == str_starts(*line, "Block");
                else if (here && sscanf(*line, "%lld %63s", &number, name) == 2 && number == major)
                        return xasprintf("%s-%s", block ? "block" : "char", name);
        }
        return NULL; /* no driver, so no device either */
}

static char *device_name(const struct cgroup_device_rule *rule, const char *proc_devices)
{
        bool block = rule->type == 'b';
        const char *kind = block ? "block" : "char";
        if (rule->major < 0)
                return xasprintf("%s-*", kind);
        if (rule->minor < 0)
                return device_group(proc_devices, block, rule->major);
        return xasprintf("/dev/%s/%lld:%lld", kind, (long long)rule->major, (long long)rule->minor);
}

void systemd_put_devices(struct buf *to, const struct cgroup_device_rule *rules, size_t length,
                         const char *proc_devices)
{
        size_t first = 0;
        bool all = false;
        for (size_t i = 0; i < length; i++) { /* what counts begins behind the last of these */
                if (rules[i].type != 'a')
                        continue;
                first = i + 1;
                all = rules[i].allow;
        }
        systemd_put_string(to, "DevicePolicy", all ? "auto" : "strict");
        systemd_put_name(to, "DeviceAllow", "a(ss)");
        struct dbus_array array = dbus_array_begin(to, 8);
        for (size_t i = first; !all && i < length; i++) {
                auto_free char *name = rules[i].allow ? device_name(&rules[i], proc_devices) : NULL;
                if (!name)
                        continue;
                dbus_put_padding(to, 8);
                dbus_put_string(to, name);
                dbus_put_string(to, rules[i].access);
        }
        dbus_array_end(to, array);
}

/* What stands between quotes, and no more; heap, NULL where that is not so. */
static char *quoted(const char *text)
{
        size_t length = strlen(text);
        if (length < 2 || (*text != '\'' && *text != '"') || text[length - 1] != *text)
                return NULL;
        auto_buf out = { 0 };
        for (size_t i = 1; i < length - 1; i++) {
                if (text[i] == *text)
                        return NULL;
                if (text[i] == '\\' && ++i == length - 1)
                        return NULL;
                buf_putc(&out, text[i]);
        }
        return buf_take(&out);
}

static char *trim(char *text)
{
        while (isspace((unsigned char)*text))
                text++;
        for (size_t n = strlen(text); n > 0 && isspace((unsigned char)text[n - 1]); n--)
                text[n - 1] = '\0';
        return text;
}

/* ['a', 'b'], whose texts have no commas. */
static int put_list(struct buf *to, const char *name, const char *text)
{
        auto_free char *inside = xstrndup(text + 1, strlen(text) - 2);
        auto_strv parts = str_split(inside, ',');
        auto_strv values = NULL;
        for (char **part = parts; *part && *trim(inside); part++) {
                char *value = quoted(trim(*part));
                if (!value)
                        return -EINVAL;
                strv_push_take(&values, value);
        }
        systemd_put_name(to, name, "as");
        struct dbus_array array = dbus_array_begin(to, 4);
        for (char **value = values; value && *value; value++)
                dbus_put_string(to, *value);
        dbus_array_end(to, array);
        return 0;
}

static int put_number(struct buf *to, const char *name, const char *type, const char *text)
{
        static const struct {
                const char *name, *signature;
                int64_t least, most;
        } types[] = {
                { "byte", "y", 0, UINT8_MAX },    { "int32", "i", INT32_MIN, INT32_MAX },
                { "uint32", "u", 0, UINT32_MAX }, { "int64", "x", INT64_MIN, INT64_MAX },
                { "uint64", "t", 0, INT64_MAX },
        };
        int64_t value;
        uint64_t large = 0;
        bool unsigned_64 = streq(type, "uint64");
        if (unsigned_64 ? str_to_u64(text, &large) < 0 : str_to_i64(text, &value) < 0)
                return -EINVAL;
        if (unsigned_64)
                value = 0;
        for (size_t i = 0; i < ELEMENTS(types); i++) {
                if (!streq(types[i].name, type))
                        continue;
                if (value < types[i].least || value > types[i].most)
                        return -EINVAL;
                systemd_put_name(to, name, types[i].signature);
                if (*types[i].signature == 'y')
                        dbus_put_byte(to, (uint8_t)value);
                else if (unsigned_64 || *types[i].signature == 'x')
                        dbus_put_u64(to, unsigned_64 ? large : (uint64_t)value);
                else
                        dbus_put_u32(to, (uint32_t)value);
                return 0;
        }
        return -EINVAL;
}

/* NameSec, whose number has any type, is NameUSec for systemd. */
static int put_seconds(struct buf *to, const char *name, const char *text)
{
        char *end;
        double seconds = strtod(text, &end);
        if (end == text || *end || seconds < 0 || seconds > 1e12)
                return -EINVAL;
        auto_free char *usec = xasprintf("%.*sUSec", (int)(strlen(name) - strlen("Sec")), name);
        systemd_put_u64(to, usec, (uint64_t)(seconds * 1e6));
        return 0;
}

static bool is_seconds(const char *name)
{
        size_t length = strlen(name);
        return length > 4 && str_ends(name, "Sec") && islower((unsigned char)name[length - 4]);
}

static int put_value(struct buf *to, const char *name, char *text)
{
        auto_free char *string = quoted(text);
        if (string) {
                systemd_put_string(to, name, string);
                return 0;
        }
        if (streq(text, "true") || streq(text, "false")) {
                systemd_put_bool(to, name, *text == 't');
                return 0;
        }
        if (*text == '[' && str_ends(text, "]"))
                return put_list(to, name, text);
        char *space = strchr(text, ' ');
        const char *number = space ? trim(space) : text;
        if (space)
                *space = '\0';
        if (is_seconds(name))
                return put_seconds(to, name, number);
        return put_number(to, name, space ? text : "int32", number);
}

int systemd_put_text(struct buf *to, const char *name, const char *value, struct err *err)
{
        auto_free char *copy = xstrdup(value);
        bool named = *name != '\0';
        for (const char *c = name; *c; c++)
                named &= isalnum((unsigned char)*c) != 0;
        if (!named)
                return err_plain(err, EINVAL, "'%s' is not the name of a systemd property", name);
        if (put_value(to, name, trim(copy)) < 0)
                return err_plain(err, EINVAL,
                                 "value of systemd property %s: '%s' is not understood; it may be "
                                 "'text', true, 5, uint64 5, ['text', 'text']",
                                 name, value);
        return 0;
}
