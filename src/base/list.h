/* Intrusive doubly linked list, circular, with a head of the same type.
 * The owner of the list owns its members. Not thread-safe. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
        struct list *next, *prev;
};

static inline void list_init(struct list *head)
{
        head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
        return head->next == head;
}

static inline void list_insert_before(struct list *at, struct list *node)
{
        node->prev = at->prev;
        node->next = at;
        at->prev->next = node;
        at->prev = node;
}

static inline void list_append(struct list *head, struct list *node)
{
        list_insert_before(head, node);
}

/* Leaves the node empty, so that removing it again is harmless. */
static inline void list_remove(struct list *node)
{
        node->prev->next = node->next;
        node->next->prev = node->prev;
        list_init(node);
}

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Walks `type *var` over the members. */
#define list_for_each(type, var, head, member)                                                     \
        for (type *var = container_of((head)->next, type, member); &var->member != (head);         \
             var = container_of(var->member.next, type, member))

/* As above; the body may remove and free `var`. */
#define list_for_each_safe(type, var, head, member)                                                \
        for (type *var = container_of((head)->next, type, member),                                 \
                  *var##_next = container_of(var->member.next, type, member);                      \
             &var->member != (head);                                                               \
             var = var##_next, var##_next = container_of(var##_next->member.next, type, member))
