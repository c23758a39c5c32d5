/* The device controller of version 2 is a program: it is given type, access,
 * major and minor, and returns whether the access is allowed.
 *
 * Rules are applied in order and the last that matches decides, so they are
 * compiled from the last to the first, each as
 *
 *         if (type != T) next;  if (access & ~A) next;  if (major != M) next;
 *         if (minor != m) next; return allow;
 *
 * and what no rule matches is refused. An access that asks for several rights at
 * once ("rw") must be covered by one rule, as in version 1.
 * Source: kernel cgroup-v2.rst "Device controller", linux/bpf.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/cgroup_provider.h"

#define RULE_INSTRUCTIONS_MAX 10
#define HEAD_INSTRUCTIONS     8
#define RULES_MAX             400 /* of 4096 instructions */
#define ATTACHED_MAX          64

enum {
        REGISTER_TYPE = 2,
        REGISTER_ACCESS = 3,
        REGISTER_MAJOR = 4,
        REGISTER_MINOR = 5,
        SCRATCH = 1
};

struct program {
        struct bpf_insn code[HEAD_INSTRUCTIONS + RULES_MAX * RULE_INSTRUCTIONS_MAX + 2];
        size_t length;
};

static void emit(struct program *p, uint8_t op, uint8_t dst, uint8_t src, int16_t off, int32_t imm)
{
        p->code[p->length++] = (struct bpf_insn){
                .code = op, .dst_reg = dst & 0xf, .src_reg = src & 0xf, .off = off, .imm = imm
        };
}

static void load_field(struct program *p, uint8_t reg, size_t offset)
{
        emit(p, BPF_LDX | BPF_MEM | BPF_W, reg, 1, (int16_t)offset, 0);
}

static void emit_head(struct program *p)
{
        size_t access_type = offsetof(struct bpf_cgroup_dev_ctx, access_type);
        load_field(p, REGISTER_TYPE, access_type);
        emit(p, BPF_ALU | BPF_AND | BPF_K, REGISTER_TYPE, 0, 0, 0xffff);
        load_field(p, REGISTER_ACCESS, access_type);
        emit(p, BPF_ALU | BPF_RSH | BPF_K, REGISTER_ACCESS, 0, 0, 16);
        load_field(p, REGISTER_MAJOR, offsetof(struct bpf_cgroup_dev_ctx, major));
        load_field(p, REGISTER_MINOR, offsetof(struct bpf_cgroup_dev_ctx, minor));
}

static int32_t access_bits(const char *access)
{
        int32_t bits = 0;
        for (; *access; access++)
                bits |= *access == 'r'   ? BPF_DEVCG_ACC_READ
                        : *access == 'w' ? BPF_DEVCG_ACC_WRITE
                                         : BPF_DEVCG_ACC_MKNOD;
        return bits;
}

static void emit_rule(struct program *p, const struct cgroup_device_rule *rule)
{
        size_t jumps[4], count = 0;
        int32_t bits = access_bits(rule->access);
        if (rule->type != 'a') {
                jumps[count++] = p->length;
                emit(p, BPF_JMP | BPF_JNE | BPF_K, REGISTER_TYPE, 0, 0,
                     rule->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
        }
        if (bits != (BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE | BPF_DEVCG_ACC_MKNOD)) {
                /* Allowing needs all of what is asked for, denying any of it. */
                emit(p, BPF_ALU | BPF_MOV | BPF_X, SCRATCH, REGISTER_ACCESS, 0, 0);
                emit(p, BPF_ALU | BPF_AND | BPF_K, SCRATCH, 0, 0, rule->allow ? ~bits & 7 : bits);
                jumps[count++] = p->length;
                emit(p, BPF_JMP | (rule->allow ? BPF_JNE : BPF_JEQ) | BPF_K, SCRATCH, 0, 0, 0);
        }
        if (rule->type != 'a' && rule->major >= 0) {
                jumps[count++] = p->length;
                emit(p, BPF_JMP | BPF_JNE | BPF_K, REGISTER_MAJOR, 0, 0, (int32_t)rule->major);
        }
        if (rule->type != 'a' && rule->minor >= 0) {
                jumps[count++] = p->length;
                emit(p, BPF_JMP | BPF_JNE | BPF_K, REGISTER_MINOR, 0, 0, (int32_t)rule->minor);
        }
        emit(p, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, rule->allow);
        emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
        for (size_t i = 0; i < count; i++)
                p->code[jumps[i]].off = (int16_t)(p->length - jumps[i] - 1);
}

static long bpf(int command, union bpf_attr *attr)
{
        return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int load_program(const struct cgroup_device_rule *rules, size_t length, struct err *err)
{
        if (length > RULES_MAX)
                return err_plain(err, E2BIG, "more than %d device rules", RULES_MAX);
        auto_free struct program *p = new0(struct program);
        emit_head(p);
        bool closed = false; /* a rule that always matches: nothing behind it is reached */
        for (size_t i = length; i-- > 0 && !closed;) {
                emit_rule(p, &rules[i]);
                closed = rules[i].type == 'a' && strlen(rules[i].access) == 3;
        }
        if (!closed) {
                emit(p, BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
                emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
        }

        union bpf_attr attr = { 0 };
        attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
        attr.insns = (uintptr_t)p->code;
        attr.insn_cnt = (uint32_t)p->length;
        attr.license = (uintptr_t) "Apache-2.0";
        strcpy(attr.prog_name, "isle_devices");
        long fd = bpf(BPF_PROG_LOAD, &attr);
        return fd < 0 ? err_set(err, errno, "load the device program") : (int)fd;
}

/* The first program attached to the group itself, by the kernel's list. */
static int attached_program(int cgroup_fd)
{
        uint32_t ids[ATTACHED_MAX] = { 0 };
        union bpf_attr attr = { 0 };
        attr.query.target_fd = (uint32_t)cgroup_fd;
        attr.query.attach_type = BPF_CGROUP_DEVICE;
        attr.query.prog_ids = (uintptr_t)ids;
        attr.query.prog_cnt = ELEMENTS(ids);
        if (bpf(BPF_PROG_QUERY, &attr) < 0 || attr.query.prog_cnt == 0)
                return -1;
        memset(&attr, 0, sizeof(attr));
        attr.prog_id = ids[0];
        return (int)bpf(BPF_PROG_GET_FD_BY_ID, &attr);
}

int cgroup_bpf_devices(struct cgroup *cgroup, const struct cgroup_device_rule *rules, size_t length,
                       struct err *err)
{
        const char *directory = cgroup->hierarchies[0].directory;
        auto_fd cgroup_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (cgroup_fd < 0)
                return err_set(err, errno, "open '%s'", directory);
        auto_fd program = load_program(rules, length, err);
        if (program < 0)
                return program;
        auto_fd old = attached_program(cgroup_fd);

        union bpf_attr attr = { 0 };
        attr.target_fd = (uint32_t)cgroup_fd;
        attr.attach_bpf_fd = (uint32_t)program;
        attr.attach_type = BPF_CGROUP_DEVICE;
        attr.attach_flags = BPF_F_ALLOW_MULTI;
        if (old >= 0) {
                attr.attach_flags |= BPF_F_REPLACE;
                attr.replace_bpf_fd = (uint32_t)old;
        }
        if (bpf(BPF_PROG_ATTACH, &attr) < 0)
                return err_set(err, errno, "attach the device program to '%s'", directory);
        return 0;
}
