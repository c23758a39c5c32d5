#include <json-c/json_object.h>
#include <json-c/linkhash.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/listing.h"
#include "cli/units.h"
#include "codec/json.h"

const struct option events_options[] = {
        OPTION_FILTER("container=web, event=die, type=image"),
        { .name = "format",
          .kind = OPTION_TEXT,
          .help = "How to print: 'json' or a template in Go's syntax, such as '{{.Action}}'" },
        { .name = "since", .kind = OPTION_TEXT, .help = "Events since a time, or for a duration" },
        { .name = "until", .kind = OPTION_TEXT, .help = "Stop at a time, or after a duration" },
        { 0 },
};

/* 2025-01-31T10:00:00.123456789Z container start ID (image=busybox, name=web) */
static void print_event(struct json_object *event)
{
        char when[UNITS_TEXT_SIZE];
        int64_t time_ns = field_int(event, "timeNano");
        if (!time_ns)
                time_ns = field_int(event, "time") * NS_PER_S;
        printf("%s %s %s %s", time_rfc3339_local(when, time_ns), field_text(event, "Type"),
               field_text(event, "Action"), field_text(event, "Actor.ID"));
        auto_free char *attributes = text_join_map(field_get(event, "Actor.Attributes"), ", ");
        if (*attributes)
                printf(" (%s)", attributes);
        printf("\n");
}

static int add_moment(struct buf *target, const struct args *args, const char *option,
                      struct err *err)
{
        char moment[UNITS_TEXT_SIZE];
        if (str_empty(args_text(args, option)))
                return 0;
        int r = moment_parse(args_text(args, option), clock_realtime_ns(), moment, err);
        if (r < 0)
                return err_wrap(err, "invalid value for \"%s\"", option);
        target_add(target, option, moment);
        return 0;
}

int cmd_events(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_exchange exchange = NULL;
        const char *format = args_text(args, "format");
        target_set(&target, "/events");
        int r = add_moment(&target, args, "since", err);
        r = r < 0 ? r : add_moment(&target, args, "until", err);
        r = r < 0 ? r : target_add_filters(&target, args_list(args, "filter"), err);
        r = r < 0 ? r : daemon_begin(cli, "GET", &target, NULL, NULL, &exchange, err);
        if (r < 0)
                return r;
        struct daemon_lines lines = { .exchange = exchange };
        for (;;) {
                auto_json event = NULL;
                r = daemon_next(&lines, &event, err);
                if (r <= 0)
                        break;
                if (str_empty(format)) {
                        print_event(event);
                } else {
                        auto_json one = json_object_new_array();
                        json_object_array_add(one, json_object_get(event));
                        r = listing_inspect(format, one, err);
                        if (r < 0)
                                break;
                }
                fflush(stdout);
        }
        daemon_lines_finish(&lines);
        return r;
}
