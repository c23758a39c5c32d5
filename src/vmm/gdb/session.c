#include "vmm/gdb/session.h"

#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "vmm/gdb/registers.h"

#define SIGNAL_TRAP 5
#define SIGNAL_INT  2

/* What of a packet is still to be read. */
struct words {
        const char *at, *end;
};

static bool take_char(struct words *w, char wanted)
{
        if (w->at == w->end || *w->at != wanted)
                return false;
        w->at++;
        return true;
}

static bool take_word(struct words *w, const char *word)
{
        size_t length = strlen(word);
        if ((size_t)(w->end - w->at) < length || memcmp(w->at, word, length) != 0)
                return false;
        w->at += length;
        return true;
}

static bool take_number(struct words *w, uint64_t *ret)
{
        uint64_t value = 0;
        unsigned digits = 0;
        for (int digit; w->at < w->end && (digit = str_hex_digit(*w->at)) >= 0; w->at++) {
                if (value >> 60)
                        return false;
                value = value << 4 | (unsigned)digit;
                digits++;
        }
        *ret = value;
        return digits > 0;
}

static bool take_byte(struct words *w, uint8_t *ret)
{
        int high = w->end - w->at >= 2 ? str_hex_digit(w->at[0]) : -1;
        int low = high >= 0 ? str_hex_digit(w->at[1]) : -1;
        if (low < 0)
                return false;
        w->at += 2;
        *ret = (uint8_t)(high << 4 | low);
        return true;
}

static bool take_bytes(struct words *w, uint8_t *bytes, size_t size)
{
        for (size_t i = 0; i < size; i++)
                if (!take_byte(w, &bytes[i]))
                        return false;
        return true;
}

/* `address,size` and `:` or whatever follows. */
static bool take_range(struct words *w, uint64_t *ret_address, uint64_t *ret_size)
{
        return take_number(w, ret_address) && take_char(w, ',') && take_number(w, ret_size);
}

/* A thread: a vCPU, or `vcpus` where all or any are meant. */
static bool take_thread(const struct gdb_session *s, struct words *w, unsigned *ret)
{
        uint64_t id;
        if (take_word(w, "-1")) {
                *ret = s->vcpus;
                return true;
        }
        if (!take_number(w, &id) || id > s->vcpus)
                return false;
        *ret = id ? (unsigned)id - 1 : s->vcpus;
        return true;
}

/* ---- answers ---- */

static void put_bytes(struct buf *out, const uint8_t *bytes, size_t size)
{
        for (size_t i = 0; i < size; i++)
                buf_printf(out, "%02x", bytes[i]);
}

/* 0 is OK, -errno an error. */
static void put_result(struct gdb_session *s, int r)
{
        if (r < 0)
                buf_printf(&s->reply, "E%02x", (unsigned)-r & 0xff);
        else
                buf_puts(&s->reply, "OK");
}

/* As put_result(), with words that gdb shows. */
static void put_outcome(struct gdb_session *s, int r, const struct err *err)
{
        if (r < 0 && err->code)
                buf_printf(&s->reply, "E.%s", err_text(err));
        else
                put_result(s, r);
}

static void send_reply(struct gdb_session *s)
{
        buf_reset(&s->last);
        gdb_packet_write(&s->last, buf_text(&s->reply), s->reply.size);
        buf_append(&s->out, s->last.data, s->last.size);
        buf_reset(&s->reply);
}

static void put_stop(struct gdb_session *s)
{
        static const char *const watches[] = {
                [GDB_WRITE] = "watch", [GDB_READ] = "rwatch", [GDB_ACCESS] = "awatch"
        };
        const struct gdb_stop *stop = &s->stop;
        buf_printf(&s->reply, "T%02xthread:%x;",
                   stop->kind == GDB_INTERRUPTED ? SIGNAL_INT : SIGNAL_TRAP, stop->vcpu + 1);
        if (stop->kind == GDB_AT_INT3)
                buf_puts(&s->reply, "swbreak:;");
        else if (stop->kind == GDB_AT_POINT && stop->point == GDB_HARDWARE)
                buf_puts(&s->reply, "hwbreak:;");
        else if (stop->kind == GDB_AT_POINT)
                buf_printf(&s->reply, "%s:%llx;", watches[stop->point],
                           (unsigned long long)stop->address);
}

/* ---- registers and memory ---- */

static void read_registers(struct gdb_session *s, struct words *w)
{
        struct cpu_state state;
        uint8_t bytes[GDB_REGISTER_BYTES];
        int r = s->target->get_state(s->arg, s->general, &state);
        (void)w;
        if (r < 0) {
                put_result(s, r);
                return;
        }
        for (unsigned i = 0; i < gdb_registers(); i++) {
                gdb_register_get(&state, i, bytes);
                put_bytes(&s->reply, bytes, gdb_register_size(i));
        }
}

static int read_selected(void *arg, uint64_t address, uint8_t *bytes, size_t size)
{
        const struct gdb_session *s = arg;
        return s->target->read(s->arg, s->general, address, bytes, size);
}

/* All or none. */
static void write_registers(struct gdb_session *s, struct words *w)
{
        const struct gdb_reader reader = { read_selected, s };
        struct err err = { 0 };
        struct cpu_state state;
        uint8_t bytes[GDB_REGISTER_BYTES];
        int r = s->target->get_state(s->arg, s->general, &state);
        for (unsigned i = 0; r == 0 && i < gdb_registers(); i++)
                r = take_bytes(w, bytes, gdb_register_size(i))
                            ? gdb_register_set(&state, i, bytes, &reader, &err)
                            : -EINVAL;
        if (r == 0)
                r = s->target->set_state(s->arg, s->general, &state, &err);
        put_outcome(s, r, &err);
}

static void read_register(struct gdb_session *s, struct words *w)
{
        struct cpu_state state;
        uint8_t bytes[GDB_REGISTER_BYTES];
        uint64_t index;
        bool known = take_number(w, &index) && index < gdb_registers();
        int r = known ? s->target->get_state(s->arg, s->general, &state) : -EINVAL;
        if (r < 0) {
                put_result(s, r);
                return;
        }
        gdb_register_get(&state, (unsigned)index, bytes);
        put_bytes(&s->reply, bytes, gdb_register_size((unsigned)index));
}

static void write_register(struct gdb_session *s, struct words *w)
{
        const struct gdb_reader reader = { read_selected, s };
        struct err err = { 0 };
        struct cpu_state state;
        uint8_t bytes[GDB_REGISTER_BYTES];
        uint64_t index;
        bool known = take_number(w, &index) && index < gdb_registers() && take_char(w, '=') &&
                     take_bytes(w, bytes, gdb_register_size((unsigned)index));
        int r = known ? s->target->get_state(s->arg, s->general, &state) : -EINVAL;
        if (r == 0)
                r = gdb_register_set(&state, (unsigned)index, bytes, &reader, &err);
        if (r == 0)
                r = s->target->set_state(s->arg, s->general, &state, &err);
        put_outcome(s, r, &err);
}

static void read_memory(struct gdb_session *s, struct words *w)
{
        uint8_t bytes[GDB_PACKET_MAX / 2];
        uint64_t address, size;
        bool known = take_range(w, &address, &size) && size <= sizeof(bytes);
        int r = known ? s->target->read(s->arg, s->general, address, bytes, size) : -EINVAL;
        if (r < 0)
                put_result(s, r);
        else
                put_bytes(&s->reply, bytes, size);
}

static void write_memory(struct gdb_session *s, struct words *w)
{
        uint8_t bytes[GDB_PACKET_MAX / 2];
        uint64_t address, size;
        bool known = take_range(w, &address, &size) && take_char(w, ':') && size <= sizeof(bytes) &&
                     take_bytes(w, bytes, size);
        put_result(s, known ? s->target->write(s->arg, s->general, address, bytes, size) : -EINVAL);
}

static void write_binary(struct gdb_session *s, struct words *w)
{
        uint64_t address, size;
        bool known = take_range(w, &address, &size) && take_char(w, ':') &&
                     size == (uint64_t)(w->end - w->at);
        put_result(s, known ? s->target->write(s->arg, s->general, address, (const uint8_t *)w->at,
                                               size)
                            : -EINVAL);
}

static void change_point(struct gdb_session *s, struct words *w, bool set)
{
        uint64_t kind, address, size;
        if (!take_number(w, &kind) || !take_char(w, ',') || !take_range(w, &address, &size))
                put_result(s, -EINVAL);
        else if (kind <= GDB_ACCESS) /* others are not known, which an empty answer says */
                put_result(s, s->target->point(s->arg, s->general, (enum gdb_point)kind, address,
                                               size, set));
}

static void set_point(struct gdb_session *s, struct words *w)
{
        change_point(s, w, true);
}

static void clear_point(struct gdb_session *s, struct words *w)
{
        change_point(s, w, false);
}

/* ---- running ---- */

static void resume(struct gdb_session *s, const uint8_t *actions)
{
        s->running = s->answered = true;
        int r = s->target->resume(s->arg, actions);
        if (r == 0)
                return;
        s->running = false;
        put_result(s, r);
}

static void resume_some(struct gdb_session *s, unsigned vcpu, enum gdb_action action)
{
        uint8_t actions[GDB_VCPUS_MAX] = { GDB_STAND };
        for (unsigned i = 0; i < s->vcpus; i++)
                if (vcpu == s->vcpus || vcpu == i)
                        actions[i] = (uint8_t)action;
        resume(s, actions);
}

/* Where the guest goes on, if that is told. */
static int jump(struct gdb_session *s, struct words *w, unsigned vcpu)
{
        struct cpu_state state;
        uint64_t address;
        if (w->at == w->end)
                return 0;
        if (!take_number(w, &address))
                return -EINVAL;
        struct err err = { 0 };
        int r = s->target->get_state(s->arg, vcpu, &state);
        state.rip = address;
        return r < 0 ? r : s->target->set_state(s->arg, vcpu, &state, &err);
}

static void go_on(struct gdb_session *s, struct words *w)
{
        int r = jump(s, w, s->general);
        if (r < 0)
                put_result(s, r);
        else
                resume_some(s, s->resuming, GDB_CONTINUE);
}

static void step(struct gdb_session *s, struct words *w)
{
        unsigned vcpu = s->resuming < s->vcpus ? s->resuming : s->general;
        int r = jump(s, w, vcpu);
        if (r < 0)
                put_result(s, r);
        else
                resume_some(s, vcpu, GDB_STEP);
}

/* A machine takes no signals: C and S are c and s, and what follows. */
static void skip_signal(struct words *w)
{
        uint64_t signal;
        if (take_number(w, &signal))
                (void)take_char(w, ';');
}

static void go_on_with_signal(struct gdb_session *s, struct words *w)
{
        skip_signal(w);
        go_on(s, w);
}

static void step_with_signal(struct gdb_session *s, struct words *w)
{
        skip_signal(w);
        step(s, w);
}

static bool take_action(struct words *w, enum gdb_action *ret)
{
        bool with_signal = w->at < w->end && (*w->at == 'C' || *w->at == 'S');
        if (take_char(w, 'c') || take_char(w, 'C'))
                *ret = GDB_CONTINUE;
        else if (take_char(w, 's') || take_char(w, 'S'))
                *ret = GDB_STEP;
        else
                return false;
        uint64_t signal;
        return !with_signal || take_number(w, &signal);
}

/* vCont;action[:thread]…: of the actions that name a thread the first counts. */
static void resume_each(struct gdb_session *s, struct words *w)
{
        uint8_t actions[GDB_VCPUS_MAX] = { GDB_STAND };
        while (take_char(w, ';')) {
                enum gdb_action action;
                unsigned thread = s->vcpus;
                if (!take_action(w, &action) ||
                    (take_char(w, ':') && !take_thread(s, w, &thread))) {
                        put_result(s, -EINVAL);
                        return;
                }
                for (unsigned i = 0; i < s->vcpus; i++)
                        if (actions[i] == GDB_STAND && (thread == s->vcpus || thread == i))
                                actions[i] = (uint8_t)action;
        }
        bool any = false;
        for (unsigned i = 0; i < s->vcpus; i++)
                any |= actions[i] != GDB_STAND;
        if (any && w->at == w->end)
                resume(s, actions);
        else
                put_result(s, -EINVAL);
}

/* ---- threads, life ---- */

static void select_thread(struct gdb_session *s, struct words *w)
{
        unsigned vcpu;
        bool general = take_char(w, 'g');
        if ((!general && !take_char(w, 'c')) || !take_thread(s, w, &vcpu)) {
                put_result(s, -EINVAL);
                return;
        }
        if (!general)
                s->resuming = vcpu;
        else if (vcpu < s->vcpus)
                s->general = vcpu;
        put_result(s, 0);
}

static void thread_lives(struct gdb_session *s, struct words *w)
{
        unsigned vcpu;
        put_result(s, take_thread(s, w, &vcpu) && vcpu < s->vcpus ? 0 : -ESRCH);
}

static void list_threads(struct gdb_session *s, struct words *w)
{
        (void)w;
        for (unsigned i = 0; i < s->vcpus; i++)
                buf_printf(&s->reply, "%c%x", i ? ',' : 'm', i + 1);
}

static void no_more_threads(struct gdb_session *s, struct words *w)
{
        (void)w;
        buf_putc(&s->reply, 'l');
}

static void name_thread(struct gdb_session *s, struct words *w)
{
        static const char *const activities[] = { "running", "halted", "waits for SIPI",
                                                  "shut down" };
        struct cpu_state state;
        char text[48];
        unsigned vcpu;
        if (!take_thread(s, w, &vcpu) || vcpu == s->vcpus ||
            s->target->get_state(s->arg, vcpu, &state) < 0) {
                put_result(s, -ESRCH);
                return;
        }
        int length = snprintf(
                text, sizeof(text), "vCPU %u [%s]", vcpu,
                activities[state.activity < ELEMENTS(activities) ? state.activity : 0]);
        put_bytes(&s->reply, (const uint8_t *)text, (size_t)length);
}

static void current_thread(struct gdb_session *s, struct words *w)
{
        if (w->at == w->end) /* qCRC is another */
                buf_printf(&s->reply, "QC%x", s->general + 1);
}

static void why_stopped(struct gdb_session *s, struct words *w)
{
        (void)w;
        put_stop(s);
}

static void detach(struct gdb_session *s, struct words *w)
{
        (void)w;
        s->over = true;
        put_result(s, 0);
}

static void kill_machine(struct gdb_session *s, struct words *w)
{
        (void)w;
        s->over = s->answered = true;
        s->target->kill(s->arg);
}

static void kill_politely(struct gdb_session *s, struct words *w)
{
        kill_machine(s, w);
        put_result(s, 0);
}

/* ---- what we can ---- */

static void tell_features(struct gdb_session *s, struct words *w)
{
        (void)w;
        buf_printf(&s->reply,
                   "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;"
                   "vContSupported+",
                   GDB_PACKET_MAX);
}

static void tell_actions(struct gdb_session *s, struct words *w)
{
        (void)w;
        buf_puts(&s->reply, "vCont;c;C;s;S");
}

static void tell_attached(struct gdb_session *s, struct words *w)
{
        (void)w;
        buf_putc(&s->reply, '1'); /* a client that leaves leaves the guest alone */
}

static void be_silent(struct gdb_session *s, struct words *w)
{
        (void)w;
        s->silent = true;
        put_result(s, 0);
}

static void describe_registers(struct gdb_session *s, struct words *w)
{
        auto_buf xml = { 0 };
        uint64_t offset, size;
        if (!take_range(w, &offset, &size)) {
                put_result(s, -EINVAL);
                return;
        }
        gdb_registers_describe(&xml);
        uint64_t left = offset < xml.size ? xml.size - offset : 0;
        uint64_t most = size < GDB_PACKET_MAX / 2 ? size : GDB_PACKET_MAX / 2; /* may be escaped */
        uint64_t part = left < most ? left : most;
        buf_putc(&s->reply, part < left ? 'm' : 'l');
        if (part)
                buf_append(&s->reply, xml.data + offset, part);
}

/* The first that fits. What is not here is answered by nothing, which says so. */
static const struct command {
        const char *name;
        void (*run)(struct gdb_session *s, struct words *w);
} commands[] = {
        { "?", why_stopped },
        { "C", go_on_with_signal },
        { "D", detach },
        { "G", write_registers },
        { "H", select_thread },
        { "M", write_memory },
        { "P", write_register },
        { "QStartNoAckMode", be_silent },
        { "S", step_with_signal },
        { "T", thread_lives },
        { "X", write_binary },
        { "Z", set_point },
        { "c", go_on },
        { "g", read_registers },
        { "k", kill_machine },
        { "m", read_memory },
        { "p", read_register },
        { "qAttached", tell_attached },
        { "qC", current_thread },
        { "qSupported", tell_features },
        { "qThreadExtraInfo,", name_thread },
        { "qXfer:features:read:target.xml:", describe_registers },
        { "qfThreadInfo", list_threads },
        { "qsThreadInfo", no_more_threads },
        { "s", step },
        { "vCont?", tell_actions },
        { "vCont", resume_each },
        { "vKill;", kill_politely },
        { "z", clear_point },
};

static void execute(struct gdb_session *s)
{
        struct words w = { s->packet.data, s->packet.data + s->packet.size };
        for (const struct command *c = commands; c < commands + ELEMENTS(commands); c++) {
                if (take_word(&w, c->name)) {
                        c->run(s, &w);
                        return;
                }
        }
}

static void take_event(struct gdb_session *s, enum gdb_event event)
{
        if (event == GDB_RESEND) {
                if (!s->silent && s->last.size)
                        buf_append(&s->out, s->last.data, s->last.size);
                return;
        }
        if (event == GDB_DAMAGED) {
                if (!s->silent)
                        buf_putc(&s->out, '-');
                return;
        }
        if (event != GDB_BREAK && !s->silent)
                buf_putc(&s->out, '+');
        if (s->running) /* nothing can be looked at until it stands, which is told */
                s->target->interrupt(s->arg);
        s->answered = event == GDB_BREAK;
        if (event == GDB_TOO_LONG)
                put_result(s, -E2BIG);
        else if (event == GDB_PACKET)
                execute(s);
        if (!s->answered || s->reply.size)
                send_reply(s);
}

void gdb_session_init(struct gdb_session *s, const struct gdb_target *target, void *arg,
                      unsigned vcpus)
{
        *s = (struct gdb_session){ .target = target, .arg = arg, .vcpus = vcpus };
        s->resuming = vcpus;
}

void gdb_session_finish(struct gdb_session *s)
{
        buf_finish(&s->out);
        buf_finish(&s->reply);
        buf_finish(&s->last);
}

size_t gdb_session_take(struct gdb_session *s, const uint8_t *bytes, size_t size)
{
        for (size_t i = 0; i < size; i++) {
                enum gdb_event event = gdb_packet_take(&s->packet, bytes[i]);
                if (event != GDB_NOTHING) {
                        take_event(s, event);
                        return i + 1;
                }
        }
        return size;
}

void gdb_session_stopped(struct gdb_session *s, const struct gdb_stop *stop)
{
        s->running = false;
        s->stop = *stop;
        s->general = stop->vcpu;
        put_stop(s);
        send_reply(s);
}

void gdb_session_ended(struct gdb_session *s)
{
        buf_puts(&s->reply, "W00");
        send_reply(s);
}
