pub const USER_ERROR_OCCURRED: &str = "EVCXR_ERROR_OCCURRED";

pub struct VariableStore {
    variables: std::collections::HashMap<String, Box<dyn std::any::Any + 'static>>,
}

impl VariableStore {
    pub fn put_variable<T: 'static>(&mut self, name: &str, value: T) {
        self.put(name, Box::new(value));
    }

    pub fn check_variable<T: 'static>(&mut self, name: &str) -> bool {
        self.check(name, std::any::TypeId::of::<T>())
    }

    pub fn take_variable<T: 'static>(&mut self, name: &str) -> T {
        match self.take(name).downcast() {
            Ok(value) => *value,
            Err(_) => panic!("Variable changed type"),
        }
    }

    #[inline(never)]
    fn put(&mut self, name: &str, value: Box<dyn std::any::Any>) {
        self.variables.insert(name.to_owned(), value);
    }

    #[inline(never)]
    fn check(&self, name: &str, wanted: std::any::TypeId) -> bool {
        let is_right = self.variables.get(name).is_none_or(|value| (**value).type_id() == wanted);
        if !is_right {
            eprintln!("The type of the variable {name} was redefined, so was lost.");
            println!("EVCXR_VARIABLE_CHANGED_TYPE:{name}");
        }
        is_right
    }

    #[inline(never)]
    fn take(&mut self, name: &str) -> Box<dyn std::any::Any> {
        self.variables.remove(name).unwrap_or_else(|| panic!("Variable '{name}' has gone missing"))
    }
}

pub fn create_variable_store() -> *mut VariableStore {
    Box::into_raw(Box::new(VariableStore { variables: std::collections::HashMap::new() }))
}
