#include "guest/ps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

#define COLUMNS_MAX 32
#define PTS_MAJOR   136 /* to 143: pseudo-terminals, 256 each */
#define DAY_S       86400

struct view { /* of one process */
        const struct agent_process *process;
        const struct agent_reply *reply;
        int64_t now_ns;
};

typedef void print_cell(const struct view *view, struct buf *to);

struct column {
        const char *names; /* of -o, between blanks; the first is its own */
        const char *title;
        bool left; /* texts */
        print_cell *print;
};

struct ps_columns {
        const struct column *list[COLUMNS_MAX];
        size_t length;
};

/* --- cells --- */

static uint64_t elapsed_s(const struct view *v)
{
        uint64_t started_ms = v->process->started_ms;
        return v->reply->uptime_ms > started_ms ? (v->reply->uptime_ms - started_ms) / 1000 : 0;
}

static void print_pid(const struct view *v, struct buf *to)
{
        buf_printf(to, "%u", v->process->pid);
}

static void print_parent(const struct view *v, struct buf *to)
{
        buf_printf(to, "%u", v->process->parent);
}

/* Other names are the guest's to know. */
static void print_user(const struct view *v, struct buf *to)
{
        if (v->process->uid == 0)
                buf_puts(to, "root");
        else
                buf_printf(to, "%u", v->process->uid);
}

static void print_uid(const struct view *v, struct buf *to)
{
        buf_printf(to, "%u", v->process->uid);
}

static uint64_t cpu_per_mille(const struct view *v)
{
        uint64_t seconds = elapsed_s(v);
        return seconds ? v->process->cpu_ms / seconds : 0;
}

static void print_cpu(const struct view *v, struct buf *to)
{
        buf_printf(to, "%" PRIu64 ".%" PRIu64, cpu_per_mille(v) / 10, cpu_per_mille(v) % 10);
}

static void print_whole_cpu(const struct view *v, struct buf *to)
{
        uint64_t percent = cpu_per_mille(v) / 10;
        buf_printf(to, "%" PRIu64, percent > 99 ? 99 : percent);
}

static void print_memory(const struct view *v, struct buf *to)
{
        uint64_t all = v->reply->memory_kib;
        double percent = all ? (double)v->process->resident_kib * 100 / (double)all : 0;
        buf_printf(to, "%.1f", percent);
}

static void print_virtual(const struct view *v, struct buf *to)
{
        buf_printf(to, "%" PRIu64, v->process->virtual_kib);
}

static void print_resident(const struct view *v, struct buf *to)
{
        buf_printf(to, "%" PRIu64, v->process->resident_kib);
}

static void print_terminal(const struct view *v, struct buf *to)
{
        unsigned device = v->process->terminal;
        unsigned pts = major(device) - PTS_MAJOR;
        if (device && pts < 8)
                buf_printf(to, "pts/%u", pts * 256 + minor(device));
        else
                buf_putc(to, '?');
}

static void print_state(const struct view *v, struct buf *to)
{
        buf_puts(to, str_empty(v->process->state) ? "?" : v->process->state);
}

static void print_threads(const struct view *v, struct buf *to)
{
        buf_printf(to, "%u", v->process->threads);
}

static void put_duration(struct buf *to, uint64_t seconds, bool hours)
{
        if (seconds >= DAY_S)
                buf_printf(to, "%" PRIu64 "-", seconds / DAY_S);
        if (hours || seconds >= 3600)
                buf_printf(to, "%02u:", (unsigned)(seconds % DAY_S / 3600));
        buf_printf(to, "%02u:%02u", (unsigned)(seconds % 3600 / 60), (unsigned)(seconds % 60));
}

static void print_time(const struct view *v, struct buf *to)
{
        put_duration(to, v->process->cpu_ms / 1000, true);
}

static void print_elapsed(const struct view *v, struct buf *to)
{
        put_duration(to, elapsed_s(v), false);
}

/* The hour of today, or the day. */
static void print_start(const struct view *v, struct buf *to)
{
        char text[32] = "?";
        uint64_t elapsed = elapsed_s(v);
        int64_t now_s = v->now_ns / NS_PER_S;
        time_t started = elapsed < (uint64_t)now_s ? (time_t)(now_s - (int64_t)elapsed) : 0;
        struct tm parts;
        if (localtime_r(&started, &parts))
                (void)strftime(text, sizeof(text), elapsed < DAY_S ? "%H:%M" : "%b%d", &parts);
        buf_puts(to, text);
}

static void print_name(const struct view *v, struct buf *to)
{
        buf_puts(to, str_empty(v->process->name) ? "?" : v->process->name);
}

static void print_command(const struct view *v, struct buf *to)
{
        const char *name = v->process->name ? v->process->name : "";
        if (str_empty(v->process->command))
                buf_printf(to, "[%s]", name);
        else
                buf_puts(to, v->process->command);
}

static const struct column known[] = {
        { "pid", "PID", false, print_pid },
        { "ppid", "PPID", false, print_parent },
        { "user euser ruser", "USER", true, print_user },
        { "uid euid ruid", "UID", false, print_uid },
        { "pcpu %cpu", "%CPU", false, print_cpu },
        { "c", "C", false, print_whole_cpu },
        { "pmem %mem", "%MEM", false, print_memory },
        { "vsz vsize", "VSZ", false, print_virtual },
        { "rss rssize rsz", "RSS", false, print_resident },
        { "tty tt tname", "TTY", true, print_terminal },
        { "stat state s", "STAT", true, print_state },
        { "nlwp thcount", "NLWP", false, print_threads },
        { "time cputime", "TIME", false, print_time },
        { "etime", "ELAPSED", false, print_elapsed },
        { "start start_time stime bsdstart", "START", true, print_start },
        { "comm ucmd ucomm", "COMMAND", true, print_name },
        { "args cmd command", "COMMAND", true, print_command },
        /* With titles of other forms; not for -o. */
        { "-user", "UID", true, print_user },
        { "-start", "STIME", true, print_start },
        { "-command", "CMD", true, print_command },
        { "-name", "CMD", true, print_name },
};

/* --- options --- */

static bool is_one_of(const char *names, const char *name)
{
        auto_strv words = str_split(names, ' ');
        return strv_contains(words, name);
}

/* `own`: a list of ours, not of -o. */
static int add_column(struct ps_columns *to, const char *name, bool own, struct err *err)
{
        for (size_t i = 0; i < ELEMENTS(known); i++) {
                if (!is_one_of(known[i].names, name) || (*name == '-' && !own))
                        continue;
                if (to->length == COLUMNS_MAX)
                        return err_plain(err, E2BIG, "ps: more than %d columns", COLUMNS_MAX);
                to->list[to->length++] = &known[i];
                return 0;
        }
        auto_strv names = NULL;
        for (size_t i = 0; i < ELEMENTS(known); i++)
                if (known[i].names[0] != '-')
                        strv_push_take(&names,
                                       xstrndup(known[i].names, strcspn(known[i].names, " ")));
        auto_free char *all = strv_join(names, " ");
        return err_plain(err, EINVAL,
                         "ps: column '%s' is not known of a virtual machine; there are %s", name,
                         all);
}

static int add_columns(struct ps_columns *to, const char *list, bool own, struct err *err)
{
        int r = 0;
        auto_strv names = str_split(list, ',');
        for (char **name = names; r == 0 && *name; name++)
                if (**name)
                        r = add_column(to, *name, own, err);
        return r;
}

struct wish {
        struct ps_columns *columns;
        const char *form; /* NULL: the plain one */
        char *const *next;
};

/* Letters in one word: "-ef", "aux", "-eo" with its list behind it or in the next word. */
static int take_word(struct wish *wish, const char *word, struct err *err)
{
        bool dash = *word == '-';
        for (const char *c = word + dash; *c; c++) {
                if (strchr("eAaxw", *c))
                        continue;
                if (*c == 'f' && dash) {
                        wish->form = "-user,pid,ppid,c,-start,tty,time,-command";
                } else if (*c == 'u' && !dash) {
                        wish->form = "user,pid,pcpu,pmem,vsz,rss,tty,stat,start,time,args";
                } else if (*c == 'o') {
                        const char *list = c[1] ? c + 1 : *wish->next ? *wish->next++ : "";
                        return add_columns(wish->columns, list, false, err);
                } else {
                        return err_plain(err, EINVAL,
                                         "ps: option '%s' is not known of a virtual machine; there "
                                         "are -ef, aux and -o COLUMNS",
                                         word);
                }
        }
        return 0;
}

int ps_parse(char *const *options, struct ps_columns **ret, struct err *err)
{
        static char *const none[] = { "-ef", NULL };
        struct ps_columns *columns = new0(struct ps_columns);
        struct wish wish = { .columns = columns, .next = options && *options ? options : none };
        int r = 0;
        while (r == 0 && *wish.next) {
                const char *word = *wish.next++;
                r = take_word(&wish, word, err);
        }
        if (r == 0 && columns->length == 0)
                r = add_columns(columns, wish.form ? wish.form : "pid,tty,time,-name", true, err);
        if (r < 0) {
                ps_columns_free(columns);
                return r;
        }
        *ret = columns;
        return 0;
}

void ps_columns_free(struct ps_columns *columns)
{
        free(columns);
}

/* --- the table --- */

static int by_pid(const void *a, const void *b)
{
        const struct agent_process *const *x = a, *const *y = b;
        return (*x)->pid < (*y)->pid ? -1 : (*x)->pid > (*y)->pid;
}

static void put_cell(struct buf *to, const char *text, size_t width, bool left, bool last)
{
        size_t pad = strlen(text) < width ? width - strlen(text) : 0;
        if (left && last)
                buf_printf(to, "%s\n", text);
        else if (left)
                buf_printf(to, "%s%*s ", text, (int)pad, "");
        else
                buf_printf(to, "%*s%s%s", (int)pad, "", text, last ? "\n" : " ");
}

static char ***make_cells(const struct ps_columns *columns, const struct agent_reply *reply,
                          int64_t now_ns)
{
        size_t n = reply->processes_length;
        char ***rows = xcalloc(n + 1, sizeof(*rows));
        auto_free const struct agent_process **sorted = xcalloc(n + 1, sizeof(*sorted));
        for (size_t i = 0; i < n; i++)
                sorted[i] = &reply->processes[i];
        qsort(sorted, n, sizeof(*sorted), by_pid);
        for (size_t i = 0; i < n; i++) {
                struct view view = { sorted[i], reply, now_ns };
                for (size_t c = 0; c < columns->length; c++) {
                        auto_buf cell = { 0 };
                        columns->list[c]->print(&view, &cell);
                        strv_push(&rows[i], buf_text(&cell));
                }
        }
        return rows;
}

void ps_print(const struct ps_columns *columns, const struct agent_reply *reply, int64_t now_ns,
              struct buf *to)
{
        size_t widths[COLUMNS_MAX];
        char ***rows = make_cells(columns, reply, now_ns);
        for (size_t c = 0; c < columns->length; c++) {
                widths[c] = strlen(columns->list[c]->title);
                for (size_t i = 0; i < reply->processes_length; i++)
                        if (strlen(rows[i][c]) > widths[c])
                                widths[c] = strlen(rows[i][c]);
        }
        for (size_t c = 0; c < columns->length; c++)
                put_cell(to, columns->list[c]->title, widths[c], columns->list[c]->left,
                         c + 1 == columns->length);
        for (size_t i = 0; i < reply->processes_length; i++) {
                for (size_t c = 0; c < columns->length; c++)
                        put_cell(to, rows[i][c], widths[c], columns->list[c]->left,
                                 c + 1 == columns->length);
                strv_free(rows[i]);
        }
        free(rows);
}
