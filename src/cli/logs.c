#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/units.h"
#include "codec/json.h"
#include "codec/stdcopy.h"

const struct option logs_options[] = {
        { .name = "details", .kind = OPTION_BOOL, .help = "Show extra attributes" },
        { .name = "follow", .letter = 'f', .kind = OPTION_BOOL, .help = "Go on as output comes" },
        { .name = "since",
          .kind = OPTION_TEXT,
          .help = "Only since a time (2025-01-31T10:00:00Z) or for a duration (42m)" },
        { .name = "tail",
          .letter = 'n',
          .kind = OPTION_TEXT,
          .initial = "all",
          .help = "How many of the last lines to show" },
        { .name = "timestamps", .letter = 't', .kind = OPTION_BOOL, .help = "Show times" },
        { .name = "until",
          .kind = OPTION_TEXT,
          .help = "Only before a time (2025-01-31T10:00:00Z) or a duration ago (42m)" },
        { 0 },
};

static int write_stream(void *arg, enum stdcopy_stream stream, const void *data, size_t size,
                        struct err *err)
{
        (void)arg;
        if (stream == STDCOPY_SYSTEM)
                return err_plain(err, EREMOTEIO, "error from daemon in stream: %.*s",
                                 (int)(size > 512 ? 512 : size), (const char *)data);
        int r = io_write_full(stream == STDCOPY_STDERR ? STDERR_FILENO : STDOUT_FILENO, data, size);
        return r < 0 ? err_set(err, -r, "write output") : 0;
}

static int copy_logs(struct http_exchange *exchange, bool framed, struct err *err)
{
        struct stdcopy copy = { 0 };
        char chunk[32768];
        for (;;) {
                ssize_t n = http_exchange_read(exchange, chunk, sizeof(chunk), err);
                if (n <= 0)
                        return (int)n;
                int r = framed ? stdcopy_feed(&copy, chunk, (size_t)n, write_stream, NULL, err)
                               : write_stream(NULL, STDCOPY_STDOUT, chunk, (size_t)n, err);
                if (r < 0)
                        return r;
        }
}

static int add_moment(struct buf *target, const struct args *args, const char *option,
                      struct err *err)
{
        char moment[UNITS_TEXT_SIZE];
        const char *text = args_text(args, option);
        if (str_empty(text))
                return 0;
        int r = moment_parse(text, clock_realtime_ns(), moment, err);
        if (r < 0)
                return err_wrap(err, "invalid value for \"%s\"", option);
        target_add(target, option, moment);
        return 0;
}

int cmd_logs(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_json container = NULL;
        auto_exchange exchange = NULL;
        target_set(&target, "/containers/%s/json", args->rest[0]);
        int r = daemon_call(cli, "GET", &target, NULL, &container, err);
        if (r < 0)
                return r;
        target_set(&target, "/containers/%s/logs", field_text(container, "Id"));
        target_add(&target, "stdout", "1");
        target_add(&target, "stderr", "1");
        target_add_flag(&target, "follow", args_bool(args, "follow"));
        target_add_flag(&target, "timestamps", args_bool(args, "timestamps"));
        target_add_flag(&target, "details", args_bool(args, "details"));
        target_add(&target, "tail", args_text(args, "tail"));
        r = add_moment(&target, args, "since", err);
        if (r == 0)
                r = add_moment(&target, args, "until", err);
        if (r == 0)
                r = daemon_begin(cli, "GET", &target, NULL, NULL, &exchange, err);
        return r < 0 ? r : copy_logs(exchange, !field_bool(container, "Config.Tty"), err);
}
