#include "monitor/exit.h"

#include <fcntl.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "monitor/protocol.h"

static void put_string(struct buf *out, const char *text)
{
        buf_putc(out, '"');
        for (; text && *text; text++) {
                unsigned char c = (unsigned char)*text;
                if (c == '"' || c == '\\')
                        buf_printf(out, "\\%c", c);
                else if (c < 0x20)
                        buf_printf(out, "\\u%04x", c);
                else
                        buf_putc(out, (char)(c < 0x7f ? c : '?'));
        }
        buf_putc(out, '"');
}

int exit_write(const struct exit_record *record, struct err *err)
{
        char started[CLOCK_TEXT_SIZE], finished[CLOCK_TEXT_SIZE];
        clock_format(record->started_ns, started);
        clock_format(record->finished_ns, finished);
        auto_buf text = { 0 };
        buf_printf(&text, "{\"exit_code\":%d,\"oom_killed\":%s,\"pid\":%d,\"started_at\":\"%s\",",
                   record->exit_code, record->oom_killed ? "true" : "false", (int)record->pid,
                   started);
        buf_printf(&text, "\"finished_at\":\"%s\",\"error\":", finished);
        put_string(&text, record->error);
        buf_puts(&text, "}\n");
        return file_replace(AT_FDCWD, MONITOR_EXIT_NAME, text.data, text.size, 0600, false, err);
}
