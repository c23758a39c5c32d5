#include "vmm/control/registers.h"

#include <stdio.h>

#include "base/str.h"

static void put(struct json_object *object, const char *name, uint64_t value)
{
        char text[24];
        snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
        json_object_object_add(object, name, json_object_new_string(text));
}

static struct json_object *segment(const struct cpu_segment *s)
{
        struct json_object *o = json_object_new_object();
        put(o, "selector", s->selector);
        put(o, "base", s->base);
        put(o, "limit", s->limit);
        put(o, "attributes", s->attributes);
        return o;
}

static struct json_object *table(const struct cpu_table *t)
{
        struct json_object *o = json_object_new_object();
        put(o, "base", t->base);
        put(o, "limit", t->limit);
        return o;
}

static struct json_object *vectors(const struct cpu_state *s)
{
        struct json_object *array = json_object_new_array();
        for (unsigned i = 0; i < 16; i++) {
                char text[80];
                snprintf(text, sizeof(text), "0x%016llx%016llx%016llx%016llx",
                         (unsigned long long)s->vec[i].qwords[3],
                         (unsigned long long)s->vec[i].qwords[2],
                         (unsigned long long)s->vec[i].qwords[1],
                         (unsigned long long)s->vec[i].qwords[0]);
                json_object_array_add(array, json_object_new_string(text));
        }
        return array;
}

struct json_object *registers_json(const struct cpu_state *s)
{
        static const char *const general[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                               "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                               "r12", "r13", "r14", "r15" };
        static const char *const segments[] = { "es", "cs", "ss", "ds", "fs", "gs" };
        static const char *const activities[] = { "running", "halted", "wait-for-sipi",
                                                  "shutdown" };
        struct json_object *o = json_object_new_object();
        for (unsigned i = 0; i < ELEMENTS(general); i++)
                put(o, general[i], s->gpr[i]);
        put(o, "rip", s->rip);
        put(o, "rflags", s->rflags);
        for (unsigned i = 0; i < ELEMENTS(segments); i++)
                json_object_object_add(o, segments[i], segment(&s->seg[i]));
        json_object_object_add(o, "ldtr", segment(&s->ldtr));
        json_object_object_add(o, "tr", segment(&s->tr));
        json_object_object_add(o, "gdtr", table(&s->gdtr));
        json_object_object_add(o, "idtr", table(&s->idtr));
        const struct {
                const char *name;
                uint64_t value;
        } others[] = {
                { "cr0", s->cr0 },     { "cr2", s->cr2 },
                { "cr3", s->cr3 },     { "cr4", s->cr4 },
                { "cr8", s->cr8 },     { "xcr0", s->xcr0 },
                { "efer", s->efer },   { "dr6", s->dr6 },
                { "dr7", s->dr7 },     { "star", s->star },
                { "lstar", s->lstar }, { "sfmask", s->sfmask },
                { "pat", s->pat },     { "kernel_gs_base", s->kernel_gs_base },
        };
        for (unsigned i = 0; i < ELEMENTS(others); i++)
                put(o, others[i].name, others[i].value);
        json_object_object_add(o, "ymm", vectors(s));
        json_object_object_add(o, "activity",
                               json_object_new_string(s->activity < ELEMENTS(activities)
                                                              ? activities[s->activity]
                                                              : "unknown"));
        return o;
}
