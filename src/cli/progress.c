#include "cli/progress.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/terminal.h"
#include "cli/units.h"
#include "codec/json.h"

#define BAR_LENGTH      50
#define BAR_WIDTH_LEAST 110 /* columns below which there is no room for a bar */
#define LINES_MAX       4096

/* "[=====>    ]  1.2MB/3.4MB" */
static void put_bar(const struct progress *progress, struct json_object *detail, struct buf *out)
{
        int64_t current = field_int(detail, "current"), total = field_int(detail, "total");
        char now[UNITS_TEXT_SIZE], all[UNITS_TEXT_SIZE];
        if (current <= 0 && total <= 0)
                return;
        size_decimal(now, (double)current, 4);
        if (total <= 0) {
                buf_printf(out, "%8s", now);
                return;
        }
        int part = (int)((double)current / (double)total * BAR_LENGTH);
        part = part > BAR_LENGTH ? BAR_LENGTH : part < 0 ? 0 : part;
        if (progress->width > BAR_WIDTH_LEAST) {
                buf_putc(out, '[');
                for (int i = 0; i < part; i++)
                        buf_putc(out, '=');
                buf_printf(out, ">%*s] ", BAR_LENGTH - part, "");
        }
        buf_printf(out, "%8s", now);
        if (current <= total)
                buf_printf(out, "/%s", size_decimal(all, (double)total, 4));
}

/* Lines up from the bottom to the id's own; a new line is made for a new id. */
static size_t find_line(struct progress *progress, const char *id, struct buf *out)
{
        size_t length = strv_length(progress->ids), line = 0;
        while (line < length && !streq(progress->ids[line], id))
                line++;
        if (line == length && length < LINES_MAX) {
                strv_push(&progress->ids, id);
                length++;
                if (progress->terminal)
                        buf_putc(out, '\n');
        }
        return length - line;
}

static void put_message(struct progress *progress, struct json_object *message, struct buf *out)
{
        struct json_object *detail = field_get(message, "progressDetail");
        const char *id = field_text(message, "id"), *status = field_text(message, "status");
        const char *stream = field_text(message, "stream");
        bool redrawn = progress->terminal && !*stream && detail;
        auto_buf bar = { 0 };
        if (detail)
                put_bar(progress, detail, &bar);
        if (!progress->terminal && bar.size)
                return;
        if (redrawn)
                buf_puts(out, "\033[2K\r");
        if (*id)
                buf_printf(out, "%s: ", id);
        if (redrawn)
                buf_printf(out, "%s %s\r", status, buf_text(&bar));
        else if (*stream)
                buf_puts(out, stream);
        else
                buf_printf(out, "%s\n", status);
}

int progress_render(struct progress *progress, struct json_object *message, struct buf *out,
                    struct err *err)
{
        const char *error = field_text(message, "errorDetail.message");
        error = *error ? error : field_text(message, "error");
        if (*error)
                return err_plain(err, EREMOTEIO, "%s", error);
        if (field_get(message, "aux"))
                return 0;
        const char *id = field_text(message, "id");
        size_t up = 0;
        if (*id && field_get(message, "progressDetail")) {
                up = find_line(progress, id, out);
                if (progress->terminal)
                        buf_printf(out, "\033[%zuA", up);
        } else {
                strv_free(progress->ids);
                progress->ids = NULL;
        }
        put_message(progress, message, out);
        if (up && progress->terminal)
                buf_printf(out, "\033[%zuB", up);
        return 0;
}

void progress_finish(struct progress *progress)
{
        strv_free(progress->ids);
        progress->ids = NULL;
}

int progress_show(struct http_exchange *exchange, int fd,
                  void (*aux)(void *arg, struct json_object *object), void *arg, struct err *err)
{
        struct daemon_lines lines = { .exchange = exchange };
        struct progress progress = { .terminal = fd >= 0 && terminal_is(fd),
                                     .width = terminal_width(fd) };
        int r;
        for (;;) {
                auto_json message = NULL;
                auto_buf out = { 0 };
                r = daemon_next(&lines, &message, err);
                if (r <= 0)
                        break;
                r = progress_render(&progress, message, &out, err);
                if (aux && field_get(message, "aux"))
                        aux(arg, field_get(message, "aux"));
                if (fd >= 0 && out.size && io_write_full(fd, out.data, out.size) < 0)
                        fd = -1; /* nobody looks; the operation goes on */
                if (r < 0)
                        break;
        }
        progress_finish(&progress);
        daemon_lines_finish(&lines);
        return r < 0 ? r : 0;
}
