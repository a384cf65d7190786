/* What the harness and the plugin know each other's marks by. */
enum { MARK = 0x65646765 };
