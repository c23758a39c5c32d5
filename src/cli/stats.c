#include <errno.h>
#include <json-c/json_object.h>
#include <json-c/json_object_iterator.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/columns.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/listing.h"
#include "cli/terminal.h"
#include "cli/units.h"
#include "codec/json.h"

/* Theory of operation.
 *
 * A reading a second: one sample of every container, all asked for at the same
 * time, and the CPU share from the difference to the sample before. Containers
 * that come or go between readings are seen because the list is read anew. */

#define PERIOD_MS 1000

const struct option stats_options[] = {
        { .name = "all",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Show all containers, not only running ones" },
        OPTION_FORMAT,
        { .name = "no-stream", .kind = OPTION_BOOL, .help = "Show one reading and stop" },
        { .name = "no-trunc", .kind = OPTION_BOOL, .help = "Do not cut text short" },
        { 0 },
};

static const struct heading headings[] = {
        { "BlockIO", "BLOCK I/O" },   { "CPUPerc", "CPU %" },
        { "Container", "CONTAINER" }, { "ID", "CONTAINER ID" },
        { "MemPerc", "MEM %" },       { "MemUsage", "MEM USAGE / LIMIT" },
        { "Name", "NAME" },           { "NetIO", "NET I/O" },
        { "PIDs", "PIDS" },           { 0 },
};

#define TABLE                                                                                      \
        "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}"  \
        "\t{{.PIDs}}"

struct subject {
        char *name; /* as asked for, or the ID */
        double cpu_before, system_before;
        double percent;
        struct json_object *sample; /* NULL: none */
        bool seen;
};

struct subjects {
        struct subject *items;
        size_t length;
};

static void subject_finish(struct subject *subject)
{
        free(subject->name);
        json_object_put(subject->sample);
}

static void subjects_finish(struct subjects *subjects)
{
        for (size_t i = 0; i < subjects->length; i++)
                subject_finish(&subjects->items[i]);
        free(subjects->items);
}

static void subjects_add(struct subjects *subjects, const char *name)
{
        for (size_t i = 0; i < subjects->length; i++) {
                if (streq(subjects->items[i].name, name)) {
                        subjects->items[i].seen = true;
                        return;
                }
        }
        subjects->items = xrealloc(subjects->items, subjects->length + 1, sizeof(struct subject));
        subjects->items[subjects->length++] = (struct subject){ .name = xstrdup(name),
                                                                .seen = true };
}

/* The containers there are now; those gone are dropped. */
static int read_list(struct cli *cli, bool all, struct subjects *subjects, struct err *err)
{
        auto_buf target = { 0 };
        auto_json list = NULL;
        target_set(&target, "/containers/json");
        target_add_flag(&target, "all", all);
        int r = daemon_call(cli, "GET", &target, NULL, &list, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < subjects->length; i++)
                subjects->items[i].seen = false;
        for (size_t i = 0; i < field_length(list, ""); i++)
                subjects_add(subjects, field_text(json_object_array_get_idx(list, i), "Id"));
        size_t kept = 0;
        for (size_t i = 0; i < subjects->length; i++) {
                if (subjects->items[i].seen)
                        subjects->items[kept++] = subjects->items[i];
                else
                        subject_finish(&subjects->items[i]);
        }
        subjects->length = kept;
        return 0;
}

static void take_sample(struct subject *subject, struct json_object *sample)
{
        double cpu = field_double(sample, "cpu_stats.cpu_usage.total_usage");
        double system = field_double(sample, "cpu_stats.system_cpu_usage");
        double cpus = field_double(sample, "cpu_stats.online_cpus");
        if (cpus <= 0)
                cpus = (double)field_length(sample, "cpu_stats.cpu_usage.percpu_usage");
        if (subject->sample && system > subject->system_before && cpu >= subject->cpu_before)
                subject->percent = (cpu - subject->cpu_before) / (system - subject->system_before) *
                                   cpus * 100;
        json_object_put(subject->sample);
        subject->sample = json_object_get(sample);
        subject->cpu_before = cpu;
        subject->system_before = system;
}

/* One sample of each. A container that does not exist is an error; one that stopped
 * has none. */
static int read_samples(struct cli *cli, struct subjects *subjects, struct err *err)
{
        auto_free struct http_exchange **exchanges = xcalloc(subjects->length + 1,
                                                             sizeof(*exchanges));
        int r = 0;
        for (size_t i = 0; i < subjects->length && r == 0; i++) {
                auto_buf target = { 0 };
                target_set(&target, "/containers/%s/stats", subjects->items[i].name);
                target_add(&target, "stream", "0");
                target_add(&target, "one-shot", "1");
                r = daemon_send(cli, "GET", &target, NULL, NULL, &exchanges[i], err);
        }
        for (size_t i = 0; i < subjects->length; i++) {
                auto_json sample = NULL;
                if (r == 0)
                        r = daemon_check(cli, exchanges[i], err);
                if (r == 0)
                        r = daemon_read_json(exchanges[i], &sample, err);
                if (r == 0)
                        take_sample(&subjects->items[i], sample);
                http_exchange_end(exchanges[i]);
        }
        return r;
}

/* --- rows --- */

static void sum_blocks(struct json_object *sample, double *ret_read, double *ret_written)
{
        struct json_object *list = field_get(sample, "blkio_stats.io_service_bytes_recursive");
        *ret_read = *ret_written = 0;
        for (size_t i = 0; i < field_length(list, ""); i++) {
                struct json_object *entry = json_object_array_get_idx(list, i);
                if (strcasecmp(field_text(entry, "op"), "read") == 0)
                        *ret_read += field_double(entry, "value");
                else if (strcasecmp(field_text(entry, "op"), "write") == 0)
                        *ret_written += field_double(entry, "value");
        }
}

static void sum_network(struct json_object *sample, double *ret_in, double *ret_out)
{
        struct json_object *networks = field_get(sample, "networks");
        *ret_in = *ret_out = 0;
        if (!json_object_is_type(networks, json_type_object))
                return;
        struct json_object_iterator at = json_object_iter_begin(networks);
        struct json_object_iterator end = json_object_iter_end(networks);
        for (; !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
                struct json_object *network = json_object_iter_peek_value(&at);
                *ret_in += field_double(network, "rx_bytes");
                *ret_out += field_double(network, "tx_bytes");
        }
}

/* Page cache that could be dropped does not count as used. */
static double memory_used(struct json_object *sample)
{
        double usage = field_double(sample, "memory_stats.usage");
        static const char *const caches[] = { "memory_stats.stats.total_inactive_file",
                                              "memory_stats.stats.inactive_file" };
        for (size_t i = 0; i < ELEMENTS(caches); i++) {
                double cache = field_double(sample, caches[i]);
                if (field_get(sample, caches[i]) && cache < usage)
                        return usage - cache;
        }
        return usage;
}

static void add_pair(struct json_object *row, const char *field, double a, double b, bool binary)
{
        char first[UNITS_TEXT_SIZE], second[UNITS_TEXT_SIZE];
        auto_free char *text = xasprintf(
                "%s / %s", binary ? size_binary(first, a) : size_decimal(first, a, 3),
                binary ? size_binary(second, b) : size_decimal(second, b, 3));
        row_add(row, field, text);
}

static void add_percent(struct json_object *row, const char *field, double percent)
{
        auto_free char *text = xasprintf("%.2f%%", percent);
        row_add(row, field, text);
}

static struct json_object *make_row(const struct subject *subject, bool whole)
{
        struct json_object *row = json_object_new_object(), *sample = subject->sample;
        double in, out, used = memory_used(sample);
        double limit = field_double(sample, "memory_stats.limit");
        const char *name = field_text(sample, "name");
        auto_free char *id = text_short_id(
                *field_text(sample, "id") ? field_text(sample, "id") : subject->name, whole);
        auto_free char *pids = xasprintf("%lld",
                                         (long long)field_int(sample, "pids_stats.current"));
        sum_blocks(sample, &in, &out);
        add_pair(row, "BlockIO", in, out, false);
        add_percent(row, "CPUPerc", subject->percent);
        row_add(row, "Container", subject->name);
        row_add(row, "ID", id);
        add_percent(row, "MemPerc", limit > 0 ? used / limit * 100 : 0);
        add_pair(row, "MemUsage", used, limit, true);
        row_add(row, "Name", name + (*name == '/'));
        sum_network(sample, &in, &out);
        add_pair(row, "NetIO", in, out, false);
        row_add(row, "PIDs", pids);
        return row;
}

static int show(const struct subjects *subjects, const struct args *args, bool redraw,
                struct err *err)
{
        static const struct listing listing = { headings, NULL };
        auto_json rows = json_object_new_array();
        auto_buf out = { 0 };
        for (size_t i = 0; i < subjects->length; i++)
                json_object_array_add(rows,
                                      make_row(&subjects->items[i], args_bool(args, "no-trunc")));
        int r = listing_render(&listing, args_text(args, "format"), TABLE, rows, &out, err);
        if (r < 0)
                return r;
        if (!redraw) {
                fputs(buf_text(&out), stdout);
        } else {
                /* Home, each line with its rest cleared, then all below. */
                printf("\033[H");
                for (char *rest = out.data, *line; rest && (line = strsep(&rest, "\n")) && rest;)
                        printf("%s\033[K\n", line);
                printf("\033[J");
        }
        fflush(stdout);
        return ferror(stdout) ? err_set(err, EPIPE, "write to standard output") : 0;
}

int cmd_stats(struct cli *cli, const struct args *args, struct err *err)
{
        __attribute__((cleanup(subjects_finish))) struct subjects subjects = { 0 };
        bool redraw = !args_bool(args, "no-stream") && terminal_is(STDOUT_FILENO);
        for (char **name = args->rest; *name; name++)
                subjects_add(&subjects, *name);
        for (unsigned reading = 0;; reading++) {
                int r = args->length ? 0 : read_list(cli, args_bool(args, "all"), &subjects, err);
                if (r == 0)
                        r = read_samples(cli, &subjects, err);
                if (r == 0 && reading == 1 && redraw)
                        printf("\033[2J");
                /* The first reading has no CPU share yet. */
                if (r == 0 && reading > 0)
                        r = show(&subjects, args, redraw, err);
                if (r < 0 || (reading > 0 && args_bool(args, "no-stream")))
                        return r;
                poll(NULL, 0, PERIOD_MS);
        }
}
