#include <json-c/json_object.h>
#include <stdio.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/columns.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "codec/json.h"

#define TOP_MINIMUM 20
#define TOP_PADDING 3

static void put_words(struct buf *out, struct json_object *words)
{
        size_t length = field_length(words, "");
        for (size_t i = 0; i < length; i++)
                buf_printf(out, "%s%s", i ? "\t" : "",
                           json_object_get_string(json_object_array_get_idx(words, i)));
        buf_putc(out, '\n');
}

int cmd_top(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_buf text = { 0 };
        auto_buf table = { 0 };
        auto_json answer = NULL;
        auto_free char *ps = strv_join(args->rest + 1, " ");
        target_set(&target, "/containers/%s/top", args->rest[0]);
        if (*ps)
                target_add(&target, "ps_args", ps);
        int r = daemon_call(cli, "GET", &target, NULL, &answer, err);
        if (r < 0)
                return r;
        put_words(&text, field_get(answer, "Titles"));
        struct json_object *processes = field_get(answer, "Processes");
        for (size_t i = 0; i < field_length(answer, "Processes"); i++)
                put_words(&text, json_object_array_get_idx(processes, i));
        columns_format(&table, buf_text(&text), TOP_MINIMUM, TOP_PADDING);
        fputs(buf_text(&table), stdout);
        return 0;
}

/* --- diff --- */

int cmd_diff(struct cli *cli, const struct args *args, struct err *err)
{
        static const char kinds[] = "CAD";
        auto_buf target = { 0 };
        auto_json changes = NULL;
        target_set(&target, "/containers/%s/changes", args->rest[0]);
        int r = daemon_call(cli, "GET", &target, NULL, &changes, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < field_length(changes, ""); i++) {
                struct json_object *change = json_object_array_get_idx(changes, i);
                int64_t kind = field_int(change, "Kind");
                printf("%c %s\n", kind >= 0 && kind < 3 ? kinds[kind] : '?',
                       field_text(change, "Path"));
        }
        return 0;
}
